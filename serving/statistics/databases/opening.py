"""The choice of a database by its path or URL, apart from `database`, which both kinds import."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from serving.statistics.databases.database import LOCK_TIMEOUT_S, Database
from serving.statistics.databases.postgresql import PostgresqlDatabase
from serving.statistics.databases.sqlite import SqliteDatabase

_ALLOWED = "write postgresql://USER@HOST/DATABASE, sqlite:///PATH, or a path to a SQLite file"


def open_database(url_or_path: str | Path, lock_timeout_s: float = LOCK_TIMEOUT_S) -> Database:
    """Choose the database of a URL or a path; it is not connected to yet.

    Raises:
        ValueError: if the URL is not supported, or its driver is not installed. The message shows no password.
    """
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return SqliteDatabase(Path(url_or_path).expanduser().resolve(), lock_timeout_s)
    url = _parse_url(url_or_path)
    if url.get_backend_name() == "sqlite" and url.database and not url.query:
        return SqliteDatabase(Path(url.database).expanduser().resolve(), lock_timeout_s)
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg") and url.database:
        return PostgresqlDatabase(url, lock_timeout_s)
    raise ValueError(f"a database URL that begins with {url.drivername}:// is not supported, or incomplete; {_ALLOWED}")


def _parse_url(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        pass  # its message may contain a password, and so would the traceback of an error raised from it
    raise ValueError(f"the statistics' database URL is malformed; {_ALLOWED}, and %-encode special characters in it")
