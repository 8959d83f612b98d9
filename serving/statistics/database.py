"""A path or a URL in; the database that it names out, and what every such database can do."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from serving.statistics.errors import StatisticsUnavailable
from serving.statistics.postgresql import PostgresqlDatabase
from serving.statistics.sqlite import SqliteDatabase

__all__ = ["Database", "StatisticsUnavailable", "open_database"]

ALLOWED = "write postgresql://USER@HOST/DATABASE, sqlite:///PATH, or a path to a SQLite file"


class Database(Protocol):
    """Where statistics are kept. Every method raises StatisticsUnavailable if the database does not do it."""

    @property
    def name(self) -> str:
        """What it is called in messages: without credentials."""

    def connect(self) -> Connection:
        """A connection to write with; makes the database if it is a file that there is not yet."""

    def is_sound(self, connection: Connection) -> bool:
        """Whether a connection that was not used for a while is still one."""

    def attach(self) -> None:
        """Take the database that is there, to read it only; none is made."""

    def writing(self, connection: Connection, *, patience_s: float | None = None) -> AbstractContextManager[None]:
        """A transaction that no other writer's overlaps, in whatever process: committed and on the disk when the
        block has been left, undone if anything raised. `patience_s` is how long to wait for other writers."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in a transaction: all that is read shows one moment."""

    def close(self) -> None:
        """Let go of connections that are kept for later."""


def open_database(url_or_path: str | Path) -> Database:
    """The database of a URL or a path; it is not connected to yet.

    Raises:
        ValueError: if it names none that is supported, or its driver is not installed. The message shows no password.
    """
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return SqliteDatabase(Path(url_or_path).resolve())
    url = _parse(url_or_path)
    if url.get_backend_name() == "sqlite" and url.database and not url.query:
        return SqliteDatabase(Path(url.database).resolve())
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg") and url.database:
        return PostgresqlDatabase(url)
    raise ValueError(f"a database URL that begins with {url.drivername}:// is not supported, or incomplete; {ALLOWED}")


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        pass  # its message may repeat a password, and so may the traceback of whatever is raised from it
    raise ValueError(f"what was given is no database URL; {ALLOWED}, and %-encode what is special in a password")
