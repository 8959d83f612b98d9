"""A PostgreSQL URL in; connections to that database out, and transactions of which only one writes at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from sqlalchemy import URL, Connection, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from serving.statistics.errors import errors_translated

LOCK_TIMEOUT_S = 2.0
"""How long a transaction waits while another process writes."""
CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 30
"""After this a statement, a silent peer, or a writer that stopped in mid-transaction is given up."""

WRITE_LOCK = 0x7061775F7374  # any number that other users of the database are unlikely to lock


class PostgresqlDatabase:
    """A PostgreSQL database, shared by any number of servers.

    Writers take one advisory lock for each transaction. They would gain little by overlapping, since each transaction
    holds all the labels that came while the one before it was synced; and what one read cannot change before it writes.

    Raises:
        ValueError: if the driver is not installed.
    """

    def __init__(self, url: URL) -> None:
        if find_spec("psycopg") is None:
            raise ValueError("statistics in PostgreSQL need its driver: pip install 'pawserve[postgres]'")
        self._url = url.set(drivername="postgresql+psycopg")
        arguments: dict[str, object] = {
            "application_name": "pawserve",
            "client_encoding": "utf8",  # or a database without an encoding (SQL_ASCII) answers in bytes
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": STALL_TIMEOUT_S,
            "tcp_user_timeout": 1000 * STALL_TIMEOUT_S,
        }
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        self._writers = create_engine(self._url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
        self._readers = create_engine(
            self._url,
            connect_args=arguments,
            pool_size=2,
            max_overflow=6,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,  # those that were kept do not survive a restart of the database
            isolation_level="REPEATABLE READ",
            hide_parameters=True,
        )

    @property
    def name(self) -> str:
        """Where the database is: without user, password and options."""
        host = self._url.host or self._url.query.get("host", "")
        port = f":{self._url.port}" if self._url.port else ""
        return f"postgresql://{host}{port}/{self._url.database}"

    def connect(self) -> Connection:
        """A connection to write with.

        Raises:
            StatisticsUnavailable: if the database does not answer, or refuses.
        """
        with errors_translated(self.name):
            return self._writers.connect()

    def is_sound(self, connection: Connection) -> bool:
        """Whether the database still answers on a connection: none survives its restart."""
        try:
            with connection.begin():
                connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError:
            return False
        return True

    def attach(self) -> None:
        """Nothing is made by connecting."""

    @contextmanager
    def writing(self, connection: Connection, *, patience_s: float | None = None) -> Iterator[None]:
        """A transaction: committed and on the server's disk when the block has been left, undone if anything raised.

        Raises:
            StatisticsUnavailable: if the database did not take it. Where the connection broke during the commit it
                may have taken it all the same; what is sent again then changes nothing.
        """
        with errors_translated(self.name), connection.begin():
            wait_s = LOCK_TIMEOUT_S if patience_s is None else patience_s
            stall_ms = round(1000 * max(STALL_TIMEOUT_S, wait_s))
            # for this transaction only: connections may come from a pooler that gives them to others
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = {round(1000 * wait_s)}; SET LOCAL statement_timeout = {stall_ms}; "
                f"SET LOCAL idle_in_transaction_session_timeout = {stall_ms}"
            )
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
            # whatever is the default there: what is acknowledged must be on the disk
            connection.exec_driver_sql(
                "SELECT set_config('synchronous_commit', 'on', true) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
            yield

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction: all that is read shows one moment.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with errors_translated(self.name), self._readers.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {1000 * STALL_TIMEOUT_S}")
            yield connection

    def close(self) -> None:
        """Let go of the connections that reads share."""
        self._readers.dispose()
