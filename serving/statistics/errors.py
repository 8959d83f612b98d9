"""What the database and the file system raise in; StatisticsUnavailable, with what to do about it, out."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

_NEW_FILE = "put a backup in its place, or stop the server, move the file away, and start with a new one"
_ADVICE = {  # by SQLite's primary result codes
    sqlite3.SQLITE_BUSY: "another program holds it locked; if that goes on, find that program",
    sqlite3.SQLITE_CANTOPEN: "the server's user must be able to write to its folder",
    sqlite3.SQLITE_CORRUPT: f"it is damaged; {_NEW_FILE}",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look after its disk: it may be full, or broken",
    sqlite3.SQLITE_NOTADB: _NEW_FILE,
    sqlite3.SQLITE_READONLY: "the server's user must be able to write to it and to its folder",
}


class StatisticsUnavailable(RuntimeError):
    """Statistics cannot be written or read now; what was asked for can be tried again."""


@contextmanager
def errors_translated(name: str) -> Iterator[None]:
    """Raise StatisticsUnavailable for what goes wrong with the database of that name."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds to tell more
        advice = f": {_ADVICE[code]}" if code in _ADVICE else ""
        raise StatisticsUnavailable(f"statistics in {name} are not available: {reason}{advice}") from error
