"""What the database and the file system raise in; StatisticsUnavailable out."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError


class StatisticsUnavailable(RuntimeError):
    """Statistics cannot be written or read now; what was asked for can be tried again."""


@contextmanager
def errors_translated(name: str) -> Iterator[None]:
    """Raise StatisticsUnavailable for what goes wrong with the database of that name."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StatisticsUnavailable(f"statistics in {name} are not available: {reason}") from error
