"""Support for tests of the statistics: labels to record, and what the database holds."""

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.bundle.model_version import ModelVersion
from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.statistics.store import Label, StatisticsStore, StatisticsUnavailable
from serving.system.times import now_ms
from serving.tokens.tokens import PredictionRecord
from tests.support.images import encoded
from tests.support.waiting import LIMIT_S

CAT, DOG = 0, 1
CLASSES = ("cat", "dog")
PETS = ModelVersion("pets", 1)
LONG_AGO_MS = 1_700_000_000_123
SHORT_S = 0.2
"""Timeout of a store whose test waits for the timeout."""
RED = encoded(Image.new("RGB", (80, 60), "red"), "PNG")


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
        future.result(LIMIT_S)


def tokens(client: Client, count: int = 1) -> list[str]:
    """The tokens of `count` predictions of red."""
    results = client.classify([RED] * count).results
    return [result.token for result in results if isinstance(result, Prediction)]


@contextmanager
def stub_of(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    """A stub of the server at an address."""
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.ClassifierStub(channel)


def record(stub: pb_grpc.ClassifierStub, labels: Sequence[tuple[str, str]]) -> None:
    """Record labels with one call; unlike `Client`, it is never repeated."""
    inputs = [pb.LabelInput(token=token, label=label) for token, label in labels]
    stub.RecordLabels(pb.RecordLabelsRequest(labels=inputs), timeout=LIMIT_S)


@contextmanager
def rejected(code: grpc.StatusCode, reason: str, field: str = "") -> Iterator[None]:
    """Assert that a call fails with its documented code, reason and field."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    assert info.reason == reason
    assert [violation.field for violation in bad.field_violations] == ([field] if field else [])
