"""Retention: old labels are deleted, totals stay, and windows that need deleted labels fail."""

import secrets
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from serving.client import Client, ClientError
from serving.statistics.retention import Retention
from serving.statistics.store import StatisticsStore
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord
from tests.support.bundles import write_bundle
from tests.support.servers import running_server
from tests.support.statistics import CAT, CLASSES, PETS, label, rows
from tests.support.waiting import LIMIT_S, eventually

DAY_MS = 86_400_000


def test_old_labels_are_deleted_and_totals_stay(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    state = tmp_path / "state"
    state.mkdir()
    signer = Keyring(state / "token.key")
    now_ms = time.time_ns() // 1_000_000

    def token(days: float) -> str:
        made_ms = now_ms - round(days * DAY_MS)
        return signer.sign(PredictionRecord(secrets.token_bytes(16), "colours", 1, 0, 0.9, made_ms))

    old, new = token(40), token(20)
    with running_server(tmp_path / "models", state) as address, Client(address, timeout_s=LIMIT_S) as client:
        client.record_labels([(old, "red"), (new, "blue")])
    with (
        running_server(tmp_path / "models", state, "--retention", 30) as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        assert eventually(lambda: len(rows(state / "statistics.sqlite", "SELECT * FROM labels")) == 1)
        [statistics] = client.statistics()
        assert statistics.labels == 2
        assert statistics.accuracy.value == 0.5
        rejected, recorded = client.record_labels([(old, "blue"), (new, "red")])
        assert isinstance(rejected, ClientError)
        assert (rejected.code, rejected.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PREDICTION_FORGOTTEN")
        assert recorded.previous_label == "blue"
        [recent] = client.statistics(start=datetime.now(UTC) - timedelta(days=29))
        assert recent.labels == 1
        with pytest.raises(ClientError) as caught:
            client.statistics(start=datetime.now(UTC) - timedelta(days=31))
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, "WINDOW_FORGOTTEN")


def test_old_labels_are_deleted_in_several_transactions_and_the_thread_stops(tmp_path: Path) -> None:
    file = tmp_path / "statistics.sqlite"
    with StatisticsStore(file) as store:
        store.register_version(PETS, CLASSES)
        store.record([label(CAT, at_ms=index) for index in range(95)]).result(LIMIT_S)
        store.record([label(CAT, at_ms=time.time_ns() // 1_000_000)]).result(LIMIT_S)
        with Retention(store, 1, chunk_rows=10):
            assert eventually(lambda: rows(file, "SELECT count(*) FROM labels") == [(1,)])
        assert store.read()[0].confusion.total == 96
    assert "statistics-retention" not in [thread.name for thread in threading.enumerate()]
