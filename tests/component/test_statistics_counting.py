"""Labels in each kind of database: each prediction counts once, with its latest label."""

import secrets
import time
from pathlib import Path

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import StatisticsStore
from tests.support.statistics import CAT, CLASSES, DOG, label, locked, matrix, rows
from tests.support.waiting import LIMIT_S


def test_an_acknowledged_label_is_in_the_file_with_the_contents_of_its_token(
    store: StatisticsStore, path: Path
) -> None:
    before_ms = time.time_ns() // 1_000_000
    token = secrets.token_bytes(16)
    assert store.record([label(DOG, predicted=CAT, token=token)]).result(LIMIT_S) == [None]

    columns = "id, model, version, predicted, actual, probability, predicted_at"
    assert rows(path, f"SELECT {columns} FROM labels") == [(token, "pets", 1, CAT, DOG, 0.75, 1_700_000_000_123)]
    [(labelled_at,)] = rows(path, "SELECT labelled_at FROM labels")
    assert before_ms <= labelled_at <= time.time_ns() // 1_000_000
    assert matrix(store) == [[0, 0], [1, 0]]


def test_a_label_sent_again_changes_nothing(store: StatisticsStore, path: Path) -> None:
    sent = label(DOG)
    store.record([sent]).result(LIMIT_S)
    before = rows(path, "SELECT * FROM labels")
    time.sleep(0.005)  # so that a new time would differ

    assert store.record([sent]).result(LIMIT_S) == [DOG]
    assert rows(path, "SELECT * FROM labels") == before


def test_another_label_for_the_same_prediction_moves_the_count(any_store: StatisticsStore) -> None:
    token = secrets.token_bytes(16)
    any_store.record([label(DOG, token=token)]).result(LIMIT_S)
    first_ms = any_store.read()[0].last_label_ms
    time.sleep(0.005)

    assert any_store.record([label(CAT, token=token)]).result(LIMIT_S) == [DOG]
    assert matrix(any_store) == [[1, 0], [0, 0]]
    assert first_ms is not None
    assert (any_store.read()[0].last_label_ms or 0) > first_ms


def test_the_same_token_several_times_in_one_batch_counts_in_order(any_store: StatisticsStore) -> None:
    token, other = secrets.token_bytes(16), secrets.token_bytes(16)
    batch = [label(actual, token=token) for actual in (DOG, DOG, CAT, DOG)]

    assert any_store.record([*batch, label(CAT, token=other)]).result(LIMIT_S) == [None, DOG, DOG, CAT, None]
    assert matrix(any_store) == [[1, 0], [1, 0]]
    assert any_store.record([*batch, label(CAT, token=other)]).result(LIMIT_S) == [DOG, DOG, DOG, CAT, CAT]
    assert matrix(any_store) == [[1, 0], [1, 0]]


def test_the_same_token_in_batches_that_are_written_together_counts_in_order(
    patient_store: StatisticsStore, path: Path
) -> None:
    token = secrets.token_bytes(16)
    with locked(path):  # delays the first, so that the others gather behind it
        futures = [patient_store.record([label(actual, token=token)]) for actual in (DOG, CAT, CAT, DOG, CAT)]
    assert [future.result(LIMIT_S) for future in futures] == [[None], [DOG], [CAT], [CAT], [DOG]]
    assert matrix(patient_store) == [[1, 0], [0, 0]]


def test_no_labels_are_a_valid_batch(any_store: StatisticsStore) -> None:
    assert any_store.record([]).result(LIMIT_S) == []


def test_ten_thousand_labels_are_one_batch(any_store: StatisticsStore) -> None:
    batch = [label(index % 2) for index in range(10_000)]

    assert any_store.record(batch).result(LIMIT_S) == [None] * 10_000
    assert any_store.record(batch[::-1]).result(LIMIT_S) == [each.actual for each in batch[::-1]]
    assert matrix(any_store) == [[5_000, 0], [5_000, 0]]


def test_versions_are_read_in_order_and_counted_separately(any_store: StatisticsStore) -> None:
    any_store.register_version(ModelVersion("pets", 10), CLASSES)
    any_store.register_version(ModelVersion("pets", 2), ("dog", "cat"))
    any_store.register_version(ModelVersion("birds", 7), ("owl", "jay", "tit"))
    any_store.register_version(ModelVersion("idle", 1), CLASSES)
    any_store.record([label(DOG), label(2, model="birds", version=7), label(CAT, version=10)]).result(LIMIT_S)
    any_store.count_predictions(ModelVersion("pets", 2), CAT, 5)
    any_store.count_predictions(ModelVersion("birds", 7), 2)

    everything = any_store.read()
    assert [str(each.version) for each in everything] == ["birds/7", "pets/1", "pets/2", "pets/10"]
    assert [each.predictions for each in everything] == [1, 1, 5, 1]  # what has a label was predicted
    assert [each.confusion.total for each in everything] == [1, 1, 0, 1]
    assert everything[2].classes == everything[2].confusion.classes == ("dog", "cat")
    assert everything[2].last_label_ms is None
    assert any_store.read("pets") == everything[1:]
    assert any_store.read("pets", 2) == everything[2:3]
    assert any_store.read(version=7) == everything[:1]
    assert any_store.read("cars") == []
