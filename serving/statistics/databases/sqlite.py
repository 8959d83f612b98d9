"""Statistics in a SQLite file: whole transactions, and only ever in the file that was opened first."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine

from serving.statistics.databases.database import LOCK_TIMEOUT_S, Database, StatisticsUnavailable, errors_translated


class SqliteDatabase(Database):
    """A SQLite file with a write-ahead log: commits are synced to the disk, and reads do not wait for writes.

    SQLite keeps writing to a file that was deleted, replaced or truncated, and those writes would be lost. So the
    file's identity and size are checked around every transaction. The file must be on a local disk, which write-ahead
    logs need.
    """

    def __init__(self, path: Path, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = path
        self.name = str(path)
        self._lock_timeout_s = lock_timeout_s
        self._engine = create_engine("sqlite://", creator=self._open, poolclass=NullPool, hide_parameters=True)
        self._identity: tuple[int, int] | None = None
        self._size = 0  # bytes, after the last transaction

    def connect(self) -> Connection:
        """Open a connection to write with. The first call creates the file if it does not exist.

        Raises:
            StatisticsUnavailable: if the file cannot be opened, or was replaced while the earlier file's log is still
                beside it.
        """
        with errors_translated(self.name):
            if self._identity is not None:
                self._check_log()
            connection = self._engine.connect()
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.commit()
                self._identity, self._size = self._stat()
            except BaseException:
                connection.close()
                raise
            return connection

    @contextmanager
    def writing(self, connection: Connection, *, lock_timeout_s: float | None = None) -> Iterator[None]:
        """Open a transaction: committed and on the disk when the block ends, rolled back if it raises.

        Raises:
            StatisticsUnavailable: if the transaction failed.
        """
        with errors_translated(self.name):
            wait_s = self._lock_timeout_s if lock_timeout_s is None else lock_timeout_s
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(1000 * wait_s)}")
            connection.commit()
            with connection.begin():
                # not deferred: two transactions that read first and write later would both fail
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._check_file(min_size=self._size)
                yield
            self._size = self._check_file()  # smaller if the commit checkpointed another process's VACUUM

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection of its own in a read transaction, which shows one moment.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with errors_translated(self.name):
            self._identity = self._identity or self._stat()[0]
            self._check_file()
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql("BEGIN")
                yield connection

    def _open(self) -> sqlite3.Connection:
        mode = "rwc" if self._identity is None else "rw"  # a file that has disappeared is not created again
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._lock_timeout_s,
            isolation_level=None,  # transactions begin only where this module begins them
            check_same_thread=False,  # opened by the constructor's thread, used by the writer's
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _stat(self) -> tuple[tuple[int, int], int]:
        """The file's identity and its size in bytes."""
        try:
            status = self.path.stat()
        except FileNotFoundError as error:
            advice = "restore it, or restart the server to begin with a new one"
            reason = f"was deleted: {advice}" if self._identity else "does not exist"
            raise StatisticsUnavailable(f"{self.path} {reason}") from error
        return (status.st_dev, status.st_ino), status.st_size

    def _check_file(self, *, min_size: int = 1) -> int:
        """Check that the file is the one opened first and not smaller than `min_size` bytes; return its size."""
        identity, size = self._stat()
        if identity != self._identity:
            raise StatisticsUnavailable(f"{self.path} was replaced while it was in use")
        if not size:
            raise self._empty_file()
        if size < min_size:
            raise StatisticsUnavailable(f"{self.path} was truncated while it was in use")
        return size

    def _check_log(self) -> None:
        """Check that a replaced file does not meet the log of the earlier one."""
        identity, size = self._stat()
        if not size:
            raise self._empty_file()
        log = self.path.with_name(f"{self.path.name}-wal")
        if identity != self._identity and log.exists():
            raise StatisticsUnavailable(
                f"{self.path} was replaced while it was in use, and {log.name} may belong to the earlier file: "
                "mixing the two would destroy both. Restore the earlier file, or delete the log to use the new one"
            )

    def _empty_file(self) -> StatisticsUnavailable:
        return StatisticsUnavailable(
            f"{self.path} is empty: restore a backup, or restart the server to begin with new statistics"
        )
