"""A path in; connections to the statistics' SQLite file out, only ever to that file, and whole transactions in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine

from serving.statistics.errors import StatisticsUnavailable, errors_translated

BUSY_TIMEOUT_S = 2.0
"""How long a transaction waits while another process writes."""


class SqliteDatabase:
    """A SQLite file with a write-ahead log: each commit is synced to the disk, and reads do not wait for writes.

    SQLite goes on writing to a file that was deleted, replaced or cut short, where nobody would find it. So the file's
    identity and size are kept, and checked around every transaction. The file must be on a local disk: write-ahead logs
    need that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine("sqlite://", creator=self._open, poolclass=NullPool, hide_parameters=True)
        self._identity: tuple[int, int] | None = None
        self._size = 0  # bytes, after the last transaction

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def connect(self) -> Connection:
        """A connection to write with. The first one creates the file, if there is none.

        Raises:
            StatisticsUnavailable: if the file cannot be opened, or is another than before with the log of that
                one still beside it.
        """
        with errors_translated(self.name):
            if self._identity is not None:
                self._refuse_what_is_not_ours()
            connection = self._engine.connect()
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.commit()
                self._identity, self._size = self._look()
            except BaseException:
                connection.close()
                raise
            return connection

    def is_sound(self, connection: Connection) -> bool:
        """It is a file of this machine: each transaction looks at it."""
        return True

    def attach(self) -> None:
        """Take the file that is there, to read it; none is made.

        Raises:
            StatisticsUnavailable: if there is none.
        """
        with errors_translated(self.name):
            self._identity, self._size = self._look()

    @contextmanager
    def writing(self, connection: Connection, *, patience_s: float | None = None) -> Iterator[None]:
        """A transaction: committed and on the disk when the block has been left, undone if anything raised.

        Raises:
            StatisticsUnavailable: if the database did not take it.
        """
        with errors_translated(self.name):
            wait_s = BUSY_TIMEOUT_S if patience_s is None else patience_s
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(1000 * wait_s)}")
            connection.commit()
            with connection.begin():
                # Not deferred: two processes that first read and then write would refuse each other.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._check_file(least=self._size)
                yield
            self._size = self._check_file()  # shorter, if the commit took somebody's VACUUM into the file

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection of its own, in a transaction: all that is read shows one moment.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with errors_translated(self.name):
            self._check_file()
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql("BEGIN")
                yield connection

    def close(self) -> None:
        """Nothing is kept for later."""

    def _open(self) -> sqlite3.Connection:
        mode = "rwc" if self._identity is None else "rw"  # a file that has gone is missed, not made anew
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,  # transactions begin where we say so
            check_same_thread=False,  # opened by the constructor's thread, used by the writer's
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _look(self) -> tuple[tuple[int, int], int]:
        """The file's identity, and its size in bytes."""
        try:
            status = self.path.stat()
        except FileNotFoundError as error:
            advice = "put it back, or start the server again to begin with a new one"
            reason = f"is gone: {advice}" if self._identity else "does not exist"
            raise StatisticsUnavailable(f"{self.path} {reason}") from error
        return (status.st_dev, status.st_ino), status.st_size

    def _check_file(self, *, least: int = 1) -> int:
        """See to it that the file is the one it was, with at least so many bytes; how many it has."""
        identity, size = self._look()
        if identity != self._identity:
            raise StatisticsUnavailable(f"{self.path} was replaced while it was in use")
        if not size:
            raise self._emptied()
        if size < least:
            raise StatisticsUnavailable(f"{self.path} was cut short while it was in use")
        return size

    def _emptied(self) -> StatisticsUnavailable:
        return StatisticsUnavailable(
            f"{self.path} is empty: put a backup in its place, or start the server again to begin anew"
        )

    def _refuse_what_is_not_ours(self) -> None:
        identity, size = self._look()
        if not size:
            raise self._emptied()
        log = self.path.with_name(f"{self.path.name}-wal")
        if identity != self._identity and log.exists():
            raise StatisticsUnavailable(
                f"{self.path} was replaced while it was in use, and {log.name} may belong to the earlier file: "
                "mixing the two would destroy both. Put the earlier file back, or delete the log to take the new one"
            )
