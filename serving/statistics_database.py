"""A path in; connections to the statistics' SQLite file out, only ever to that file, and whole transactions in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

BUSY_TIMEOUT_S = 2.0
"""How long a transaction waits while another process writes."""


class StatisticsUnavailable(RuntimeError):
    """Statistics cannot be written or read now; what was asked for can be tried again."""


class Database:
    """A SQLite file with a write-ahead log: each commit is synced to the disk, and reads do not wait for writes.

    SQLite goes on writing to a file that was deleted or replaced, where nobody would find it. So the file's identity
    is kept, and checked around every transaction. The file must be on a local disk: write-ahead logs need that.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        self.path = _path_of(url_or_path)
        self._engine = create_engine("sqlite://", creator=self._open, poolclass=NullPool, hide_parameters=True)
        self._identity: tuple[int, int] | None = None

    def connect(self) -> Connection:
        """A connection to write with. The first one creates the file, if there is none.

        Raises:
            StatisticsUnavailable: if the file cannot be opened, or is another than before with the log of that
                one still beside it.
        """
        with self.errors_translated():
            if self._identity is not None and _identity_of(self.path) != self._identity:
                self._refuse_foreign_log()
            connection = self._engine.connect()
            try:
                self._identity = _identity_of(self.path)
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.commit()
            except BaseException:
                connection.close()
                raise
            return connection

    @contextmanager
    def writing(self, connection: Connection) -> Iterator[None]:
        """A transaction: committed and on the disk when the block has been left, undone if anything raised.

        Raises:
            StatisticsUnavailable: if the database did not take it.
        """
        with self.errors_translated():
            with connection.begin():
                # Not deferred: two processes that first read and then write would refuse each other.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._check_identity()
                yield
            self._check_identity()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection of its own, in a transaction: all that is read shows one moment.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with self.errors_translated():
            self._check_identity()
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql("BEGIN")
                yield connection

    @contextmanager
    def errors_translated(self) -> Iterator[None]:
        """Raise StatisticsUnavailable for what the database and the file system raise."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", None) or error
            raise StatisticsUnavailable(f"statistics in {self.path} are not available: {reason}") from error

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

    def _check_identity(self) -> None:
        if _identity_of(self.path) != self._identity:
            raise StatisticsUnavailable(f"{self.path} was replaced while it was in use")

    def _refuse_foreign_log(self) -> None:
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists():
            raise StatisticsUnavailable(
                f"{self.path} was replaced while it was in use, and {log.name} may belong to the earlier file: "
                "mixing the two would destroy both. Put the earlier file back, or delete the log to take the new one"
            )


def _identity_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _path_of(url_or_path: str | Path) -> Path:
    if isinstance(url_or_path, str) and "://" in url_or_path:
        try:
            url = make_url(url_or_path)
        except ArgumentError as error:
            raise ValueError(f"{url_or_path!r} is no database URL; write sqlite:///PATH, or a path") from error
        if url.get_backend_name() != "sqlite" or not url.database or url.query:
            raise ValueError(
                f"{url.render_as_string()!r} is not supported; write sqlite:///PATH, or a path to a SQLite file"
            )
        url_or_path = url.database
    return Path(url_or_path).resolve()
