"""Statistics in a PostgreSQL database that several servers share; one transaction writes at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sqlalchemy import URL, Connection, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from serving.statistics.databases.database import LOCK_TIMEOUT_S, Database, errors_translated

CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 30
"""Timeout of a statement, of an unresponsive peer, and of a writer that is idle in its transaction."""

WRITE_LOCK = 0x7061775F7374  # an arbitrary number that other users of the database are unlikely to use


class PostgresqlDatabase(Database):
    """A PostgreSQL database, shared by any number of servers.

    Writers take one advisory lock for each transaction, so that what a transaction reads still holds when it writes.
    Overlapping writers would gain little: each transaction holds all labels that arrived while the previous one was
    synced.

    Raises:
        ValueError: if the driver is not installed.
    """

    def __init__(self, url: URL, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        if find_spec("psycopg") is None:
            raise ValueError("statistics in PostgreSQL need its driver: pip install 'pawserve[postgres]'")
        self._lock_timeout_s = lock_timeout_s
        host, port = url.host or url.query.get("host", ""), f":{url.port}" if url.port else ""
        self.name = f"postgresql://{host}{port}/{url.database}"
        url = url.set(drivername="postgresql+psycopg")
        arguments: dict[str, object] = {
            "application_name": "pawserve",
            "client_encoding": "utf8",  # otherwise a database without an encoding (SQL_ASCII) returns bytes
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": STALL_TIMEOUT_S,
            "tcp_user_timeout": 1000 * STALL_TIMEOUT_S,
        }
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        self._writers = create_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
        self._readers = create_engine(
            url,
            connect_args=arguments,
            pool_size=2,
            max_overflow=6,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,  # pooled connections do not survive a restart of the database
            isolation_level="REPEATABLE READ",
            hide_parameters=True,
        )

    def connect(self) -> Connection:
        """Open a connection to write with.

        Raises:
            StatisticsUnavailable: if the database does not respond or rejects the connection.
        """
        with errors_translated(self.name):
            return self._writers.connect()

    def is_alive(self, connection: Connection) -> bool:
        """Whether an idle connection still works: none survives a restart of the database."""
        try:
            with connection.begin():
                connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError:
            return False
        return True

    @contextmanager
    def writing(self, connection: Connection, *, lock_timeout_s: float | None = None) -> Iterator[None]:
        """Open a transaction: committed and on the server's disk when the block ends, rolled back if it raises.

        Raises:
            StatisticsUnavailable: if the transaction failed. If the connection broke during the commit, it may have
                been committed all the same; sending the same labels again then changes nothing.
        """
        with errors_translated(self.name), connection.begin():
            wait_s = self._lock_timeout_s if lock_timeout_s is None else lock_timeout_s
            stall_ms = round(1000 * max(STALL_TIMEOUT_S, wait_s))
            # LOCAL: a connection pooler may give the connection to others after this transaction
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = {round(1000 * wait_s)}; SET LOCAL statement_timeout = {stall_ms}; "
                f"SET LOCAL idle_in_transaction_session_timeout = {stall_ms}"
            )
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
            # whatever the database's default: an acknowledged label must be on the disk
            connection.exec_driver_sql(
                "SELECT set_config('synchronous_commit', 'on', true) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
            yield

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection in a read transaction, which shows one moment.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with errors_translated(self.name), self._readers.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {1000 * STALL_TIMEOUT_S}")
            yield connection

    def close(self) -> None:
        """Close the pooled connections of reads."""
        self._readers.dispose()
