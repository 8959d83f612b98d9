"""What tests of the statistics share: labels to record, and what was made of them."""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.statistics.store import Label, StatisticsStore, StatisticsUnavailable
from serving.tokens.tokens import PredictionRecord

CAT, DOG = 0, 1
CLASSES = ("cat", "dog")
TIMEOUT_S = 10
LONG_AGO_MS = 1_700_000_000_123


def label(
    actual: int,
    *,
    predicted: int = CAT,
    token: bytes | None = None,
    model: str = "pets",
    version: int = 1,
    probability: float = 0.75,
    at_ms: int = LONG_AGO_MS,
) -> Label:
    """A label of a prediction of its own, unless `token` names one."""
    id_ = token or secrets.token_bytes(16)
    return Label(PredictionRecord(id_, model, version, predicted, probability, at_ms), actual)


def matrix(store: StatisticsStore, model: str = "pets", version: int = 1) -> list[list[int]]:
    """Rows: what was true."""
    statistics = store.read(model, version)
    return statistics[0].confusion.counts_KK.tolist() if statistics else [[0, 0], [0, 0]]


def predictions(store: StatisticsStore) -> int:
    """Of all versions."""
    return sum(each.predictions for each in store.read())


def rows(path: Path, query: str) -> list[Any]:
    """What another process sees in a SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process writes to a SQLite file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def fails(future: Future[Any], message: str) -> None:
    """A label was refused."""
    with pytest.raises(StatisticsUnavailable, match=message):
        future.result(TIMEOUT_S)


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Until it is so, but not forever."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
