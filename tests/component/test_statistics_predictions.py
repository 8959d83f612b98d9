"""Predictions are counted in memory and written to the disk, each exactly once."""

import secrets
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving.statistics import queries as statistics_queries
from serving.statistics.store import StatisticsStore
from tests.support.statistics import CAT, CLASSES, DOG, PETS, label, locked, matrix, predictions, rows
from tests.support.waiting import LIMIT_S, eventually


def test_predictions_are_read_before_they_are_written(path: Path) -> None:
    with StatisticsStore(path, flush_interval_s=3600) as store:
        store.register_version(PETS, CLASSES)
        store.count_predictions(PETS, CAT)
        store.count_predictions(PETS, DOG, 3)
        assert predictions(store) == 4
        assert rows(path, "SELECT * FROM predictions") == []


def test_predictions_are_written_without_any_label(store: StatisticsStore, path: Path) -> None:
    store.count_predictions(PETS, CAT)
    assert eventually(lambda: rows(path, "SELECT * FROM predictions") != [])
    store.count_predictions(PETS, DOG, 3)
    assert eventually(lambda: len(rows(path, "SELECT * FROM predictions")) == 2)
    assert rows(path, "SELECT * FROM predictions") == [("pets", 1, CAT, 1), ("pets", 1, DOG, 3)]
    assert predictions(store) == 4


def test_predictions_are_written_with_the_next_label_and_on_close(store: StatisticsStore, path: Path) -> None:
    store.count_predictions(PETS, CAT, 5)
    store.record([label(CAT)]).result(LIMIT_S)
    assert rows(path, "SELECT count FROM predictions") == [(5,)]

    store.count_predictions(PETS, CAT, 2)
    store.close()
    assert rows(path, "SELECT count FROM predictions") == [(7,)]


def test_predictions_are_written_once_the_database_is_back(
    store: StatisticsStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with locked(path):
        store.count_predictions(PETS, CAT, 5)
        assert eventually(lambda: "locked" in caplog.text)
    assert eventually(lambda: rows(path, "SELECT count FROM predictions") == [(5,)])


def test_processes_that_share_a_file_add_up(store: StatisticsStore, path: Path) -> None:
    with StatisticsStore(f"sqlite:///{path}") as other:
        other.register_version(PETS, CLASSES)
        other.count_predictions(PETS, CAT, 10)
        token = secrets.token_bytes(16)
        store.count_predictions(PETS, CAT, 1)
        assert store.record([label(DOG, token=token)]).result(LIMIT_S) == [None]
        assert other.record([label(CAT, token=token)]).result(LIMIT_S) == [DOG]
    assert predictions(store) == 11
    assert matrix(store) == [[1, 0], [0, 0]]


def test_a_read_sees_each_prediction_once_while_they_are_written(
    store: StatisticsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts move from memory to the file during each read, which must see each of them once."""
    slow_down(monkeypatch, "select_predictions")
    for counted in range(1, 51):
        store.count_predictions(PETS, CAT)
        labelled = store.record([label(DOG)])
        assert predictions(store) == counted
        labelled.result(LIMIT_S)


def test_a_read_shows_one_moment_while_others_write(store: StatisticsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, "select_outcomes")
    stop = threading.Event()

    def predict_and_label() -> None:
        while not stop.is_set():
            store.count_predictions(PETS, CAT)
            store.record([label(DOG)]).result(LIMIT_S)

    writer = threading.Thread(target=predict_and_label)
    writer.start()
    try:
        assert eventually(lambda: store.read() != [])
        seen = [store.read()[0] for _ in range(50)]
        assert eventually(lambda: store.read()[0].predictions > seen[0].predictions)  # reads do not block the writer
    finally:
        stop.set()
        writer.join()
    assert all(0 <= each.predictions - each.confusion.total <= 1 for each in seen)


def slow_down(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """Delay a query, so that commits happen between it and earlier reads."""
    run = getattr(statistics_queries, query)

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.005)
        return run(*arguments)

    monkeypatch.setattr(statistics_queries, query, slowly)
