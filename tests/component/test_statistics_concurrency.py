"""Concurrent threads and processes: no label is lost or counted twice, and no request waits forever."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from tests.support.commands import run_programs_at_once
from tests.support.statistics import CAT, CLASSES, DOG, LONG_AGO_MS, PETS, label, locked, matrix, predictions, rows
from tests.support.waiting import LIMIT_S, eventually


def test_labels_and_predictions_of_many_threads_count_once(store: StatisticsStore) -> None:
    threads, each = 16, 60

    def send(number: int) -> None:
        for index in range(each):
            store.count_predictions(PETS, DOG)
            sent = [label((number + index) % 2, predicted=DOG) for _ in range(index % 3 + 1)]
            assert store.record(sent).result(LIMIT_S) == [None] * len(sent)
            assert store.record(sent[:1]).result(LIMIT_S) == [sent[0].actual]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    assert matrix(store) == [[0, threads * each], [0, threads * each]]
    assert predictions(store) == 2 * threads * each  # all of these have labels, though only half were counted


def test_processes_that_start_together_share_a_new_file(path: Path) -> None:
    program = (
        "import sys; from serving.bundle.model_version import ModelVersion\n"
        "from serving.statistics.store import StatisticsStore\n"
        "sys.stdin.readline()\n"
        "for n in range(5):\n"
        "    with StatisticsStore(f'{sys.argv[1]}-{n}') as store:\n"
        "        store.register_version(ModelVersion('pets', 1), ['cat', 'dog'])\n"
        "        store.count_predictions(ModelVersion('pets', 1), 0)\n"
    )
    run_programs_at_once([(program, path)] * 4)
    for number in range(5):
        assert rows(Path(f"{path}-{number}"), "SELECT count FROM predictions") == [(4,)]


def test_labels_beyond_the_queue_limit_are_rejected(patient_store: StatisticsStore, path: Path) -> None:
    batch = [label(CAT)] * 10_000
    with locked(path):
        running = patient_store.record([label(DOG)])
        assert eventually(running.running)
        waiting = [patient_store.record(batch) for _ in range(10)]
        with pytest.raises(StatisticsUnavailable, match="100,000 labels are waiting"):
            patient_store.record([label(DOG)])
    for future in waiting:
        future.result(LIMIT_S)
    assert patient_store.record([label(DOG)]).result(LIMIT_S) == [None]
    assert matrix(patient_store) == [[1, 0], [2, 0]]


def test_labels_that_are_cancelled_in_time_are_not_recorded(patient_store: StatisticsStore, path: Path) -> None:
    with locked(path):
        running = patient_store.record([label(CAT)])
        assert eventually(running.running)
        assert patient_store.record([label(DOG)]).cancel()
        assert not running.cancel()
    assert patient_store.record([label(CAT)]).result(LIMIT_S) == [None]
    assert matrix(patient_store) == [[2, 0], [0, 0]]


def test_close_writes_waiting_labels_and_rejects_later_ones(store: StatisticsStore, path: Path) -> None:
    futures = [store.record([label(DOG)]) for _ in range(50)]
    store.close()
    store.close()

    assert all(future.done() for future in futures)
    assert rows(path, "SELECT count(*) FROM labels") == [(50,)]
    assert not path.with_name("statistics.db-wal").exists()
    for call in (
        lambda: store.record([label(CAT)]),
        lambda: store.count_predictions(PETS, CAT),
        lambda: store.register_version(ModelVersion("pets", 2), CLASSES),
    ):
        with pytest.raises(StatisticsUnavailable, match="closed"):
            call()


def test_a_label_that_is_corrected_while_labels_of_its_time_are_deleted_counts_once(
    patient_store: StatisticsStore, path: Path
) -> None:
    id_ = bytes(16)
    patient_store.record([label(CAT, token=id_)]).result(LIMIT_S)
    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            running = patient_store.record([label(CAT)])
            assert eventually(running.running)
            deleting = pool.submit(patient_store.delete_labels, LONG_AGO_MS + 1, 10)
            correction = patient_store.record([label(DOG, token=id_)])
        deleting.result(LIMIT_S)
        correction.result(LIMIT_S)
    assert matrix(patient_store) == [[1, 0], [1, 0]]
