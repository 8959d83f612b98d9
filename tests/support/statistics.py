"""Support for tests of the statistics: labels to record, and what the database holds."""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import Label, StatisticsStore, StatisticsUnavailable
from serving.system.times import now_ms
from serving.tokens.tokens import PredictionRecord

CAT, DOG = 0, 1
CLASSES = ("cat", "dog")
PETS = ModelVersion("pets", 1)
TIMEOUT_S = 120
"""Limit of a wait for an event, which on a busy machine may take long."""
SHORT_S = 0.2
"""Timeout of a store whose test waits for the timeout."""
LONG_AGO_MS = 1_700_000_000_123


class Clock:
    """The time of day in Unix milliseconds: the real one until a test sets `now_ms`."""

    def __init__(self) -> None:
        self.now_ms: int | None = None

    def __call__(self) -> int:
        return now_ms() if self.now_ms is None else self.now_ms


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
    """A label of a new prediction, or of the one whose ID `token` is."""
    id_ = token or secrets.token_bytes(16)
    return Label(PredictionRecord(id_, model, version, predicted, probability, at_ms), actual)


def matrix(store: StatisticsStore, model: str = "pets", version: int = 1) -> list[list[int]]:
    """The confusion matrix; rows are actual classes."""
    statistics = store.read(model, version)
    return statistics[0].confusion.counts_KK.tolist() if statistics else [[0, 0], [0, 0]]


def predictions(store: StatisticsStore) -> int:
    """How many predictions all versions made."""
    return sum(each.predictions for each in store.read())


def rows(path: Path, query: str) -> list[Any]:
    """Read a SQLite file as another process does."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a SQLite file, as another process that writes does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def fails(future: Future[Any], message: str) -> None:
    """Assert that labels were rejected with a message."""
    with pytest.raises(StatisticsUnavailable, match=message):
        future.result(TIMEOUT_S)


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait until a condition holds, up to a limit."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
