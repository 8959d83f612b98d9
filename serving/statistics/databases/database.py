"""What every statistics database offers, and how its errors are reported."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

LOCK_TIMEOUT_S = 2.0
"""How long a transaction waits while another process writes."""

_NEW_FILE = "restore a backup, or stop the server, move the file away, and start with a new one"
_ADVICE = {  # by SQLite's primary result codes
    sqlite3.SQLITE_BUSY: "another program holds a lock on it; if this persists, find that program",
    sqlite3.SQLITE_CANTOPEN: "the server's user must be able to write to its folder",
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {_NEW_FILE}",
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk, which may be full or broken",
    sqlite3.SQLITE_NOTADB: _NEW_FILE,
    sqlite3.SQLITE_READONLY: "the server's user must be able to write to it and to its folder",
}


class StatisticsUnavailable(RuntimeError):
    """Statistics cannot be written or read now; the same call can be tried again."""


class Database(ABC):
    """A database of statistics. Every method raises StatisticsUnavailable if the database fails."""

    name: str
    """Its name in messages, without credentials."""

    @abstractmethod
    def connect(self) -> Connection:
        """Open a connection to write with. A database file is created if it does not exist."""

    def is_alive(self, connection: Connection) -> bool:
        """Whether an idle connection still works."""
        return True

    @abstractmethod
    def writing(self, connection: Connection, *, lock_timeout_s: float | None = None) -> AbstractContextManager[None]:
        """Open a transaction that excludes the writers of all processes.

        It is committed and on the disk when the block ends, and rolled back if the block raises. `lock_timeout_s` is
        how long to wait for other writers; None for the database's default.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection in a read transaction, which shows one moment. No database is created."""

    def close(self) -> None:  # noqa: B027
        """Close pooled connections."""


@contextmanager
def errors_translated(name: str) -> Iterator[None]:
    """Raise StatisticsUnavailable, with advice, for errors of the database `name`."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code of SQLite's extended one
        advice = f": {_ADVICE[code]}" if code in _ADVICE else ""
        raise StatisticsUnavailable(f"statistics in {name} are not available: {reason}{advice}") from error
