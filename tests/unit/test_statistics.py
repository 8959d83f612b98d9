"""Statistics in real SQLite files: what is acknowledged is kept and counted once, whatever happens to the disk."""

import json
import os
import pwd
import random
import resource
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event

from serving import statistics_database, statistics_tables, statistics_writer
from serving.statistics import Label, StatisticsStore, StatisticsUnavailable
from serving.statistics_database import Database
from serving.tokens import PredictionRecord

CAT, DOG = 0, 1
CLASSES = ("cat", "dog")
TIMEOUT_S = 10


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(statistics_database, "BUSY_TIMEOUT_S", 0.2)  # tests need not wait as long as users might
    return tmp_path / "statistics.db"


@pytest.fixture
def store(path: Path) -> Iterator[StatisticsStore]:
    with StatisticsStore(path) as store:
        store.register_version("pets", 1, CLASSES)
        yield store


@pytest.fixture
def patient_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatisticsStore]:
    """Waits for a lock as long as a test may take, so that labels can be made to gather behind it."""
    monkeypatch.setattr(statistics_database, "BUSY_TIMEOUT_S", TIMEOUT_S)
    with StatisticsStore(path) as store:
        store.register_version("pets", 1, CLASSES)
        yield store


def label(
    actual: int, *, predicted: int = CAT, token: bytes | None = None, model: str = "pets", version: int = 1
) -> Label:
    id_ = token or secrets.token_bytes(16)
    return Label(PredictionRecord(id_, model, version, predicted, 0.75, 1_700_000_000_123), actual)


def matrix(store: StatisticsStore, model: str = "pets", version: int = 1) -> list[list[int]]:
    """Rows: what was true."""
    statistics = store.read(model, version)
    return statistics[0].confusion.counts_KK.tolist() if statistics else [[0, 0], [0, 0]]


def predictions(store: StatisticsStore) -> int:
    return sum(each.predictions for each in store.read())


def rows(path: Path, query: str) -> list[Any]:
    """What another process sees."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process writes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def fails(future: Future[Any], message: str) -> None:
    with pytest.raises(StatisticsUnavailable, match=message):
        future.result(TIMEOUT_S)


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# What is counted


def test_an_acknowledged_label_is_in_the_file_with_all_that_the_token_said(store: StatisticsStore, path: Path) -> None:
    before_ms = time.time_ns() // 1_000_000
    token = secrets.token_bytes(16)
    assert store.record([label(DOG, predicted=CAT, token=token)]).result(TIMEOUT_S) == [None]

    columns = "id, model, version, predicted, actual, probability, predicted_at"
    assert rows(path, f"SELECT {columns} FROM labels") == [(token, "pets", 1, CAT, DOG, 0.75, 1_700_000_000_123)]
    [(labelled_at,)] = rows(path, "SELECT labelled_at FROM labels")
    assert before_ms <= labelled_at <= time.time_ns() // 1_000_000
    assert matrix(store) == [[0, 0], [1, 0]]


def test_a_label_sent_again_changes_nothing(store: StatisticsStore, path: Path) -> None:
    sent = label(DOG)
    store.record([sent]).result(TIMEOUT_S)
    before = rows(path, "SELECT * FROM labels")
    time.sleep(0.005)  # so that a new time of labelling would differ

    assert store.record([sent]).result(TIMEOUT_S) == [DOG]
    assert rows(path, "SELECT * FROM labels") == before


def test_another_label_for_the_same_prediction_moves_the_count(store: StatisticsStore) -> None:
    token = secrets.token_bytes(16)
    store.record([label(DOG, token=token)]).result(TIMEOUT_S)
    first_ms = store.read()[0].last_label_ms
    time.sleep(0.005)

    assert store.record([label(CAT, token=token)]).result(TIMEOUT_S) == [DOG]
    assert matrix(store) == [[1, 0], [0, 0]]
    assert first_ms is not None
    assert (store.read()[0].last_label_ms or 0) > first_ms


def test_the_same_token_several_times_in_one_batch_counts_in_order(store: StatisticsStore) -> None:
    token, other = secrets.token_bytes(16), secrets.token_bytes(16)
    batch = [label(actual, token=token) for actual in (DOG, DOG, CAT, DOG)]

    assert store.record([*batch, label(CAT, token=other)]).result(TIMEOUT_S) == [None, DOG, DOG, CAT, None]
    assert matrix(store) == [[1, 0], [1, 0]]
    assert store.record([*batch, label(CAT, token=other)]).result(TIMEOUT_S) == [DOG, DOG, DOG, CAT, CAT]
    assert matrix(store) == [[1, 0], [1, 0]]


def test_the_same_token_in_batches_that_are_written_together_counts_in_order(
    patient_store: StatisticsStore, path: Path
) -> None:
    token = secrets.token_bytes(16)
    with locked(path):  # holds up the first, so that the others gather behind it
        futures = [patient_store.record([label(actual, token=token)]) for actual in (DOG, CAT, CAT, DOG, CAT)]
    assert [future.result(TIMEOUT_S) for future in futures] == [[None], [DOG], [CAT], [CAT], [DOG]]
    assert matrix(patient_store) == [[1, 0], [0, 0]]


def test_numbers_as_an_engine_returns_them_are_recorded(store: StatisticsStore, path: Path) -> None:
    probabilities_K = np.array([0.25, 0.75], np.float32)
    best = probabilities_K.argmax()
    store.count_predictions("pets", 1, best)  # type: ignore[arg-type]
    record = PredictionRecord(secrets.token_bytes(16), "pets", 1, best, probabilities_K[best], 0)  # type: ignore[arg-type]
    assert store.record([Label(record, np.int64(CAT))]).result(TIMEOUT_S) == [None]  # type: ignore[arg-type]

    assert rows(path, "SELECT predicted, actual, probability FROM labels") == [(DOG, CAT, 0.75)]
    assert rows(path, "SELECT predicted, count FROM predictions") == [(DOG, 1)]


def test_no_labels_are_a_valid_batch(store: StatisticsStore) -> None:
    assert store.record([]).result(TIMEOUT_S) == []


def test_ten_thousand_labels_are_recorded_at_once(store: StatisticsStore) -> None:
    batch = [label(index % 2) for index in range(10_000)]

    assert store.record(batch).result(TIMEOUT_S) == [None] * 10_000
    assert store.record(batch[::-1]).result(TIMEOUT_S) == [each.actual for each in batch[::-1]]
    assert matrix(store) == [[5_000, 0], [5_000, 0]]


def test_versions_are_read_in_order_and_apart(store: StatisticsStore) -> None:
    store.register_version("pets", 10, CLASSES)
    store.register_version("pets", 2, ("dog", "cat"))
    store.register_version("birds", 7, ("owl", "jay", "tit"))
    store.register_version("idle", 1, CLASSES)
    store.record([label(DOG), label(2, model="birds", version=7), label(CAT, version=10)]).result(TIMEOUT_S)
    store.count_predictions("pets", 2, CAT, 5)
    store.count_predictions("birds", 7, 2)

    everything = store.read()
    assert [(each.model, each.version) for each in everything] == [("birds", 7), ("pets", 1), ("pets", 2), ("pets", 10)]
    assert [each.predictions for each in everything] == [1, 0, 5, 0]
    assert [each.confusion.total for each in everything] == [1, 1, 0, 1]
    assert everything[2].classes == everything[2].confusion.classes == ("dog", "cat")
    assert everything[2].last_label_ms is None
    assert store.read("pets") == everything[1:]
    assert store.read("pets", 2) == everything[2:3]
    assert store.read(version=7) == everything[:1]
    assert store.read("cars") == []


# What may be counted


def test_classes_stay_known_after_the_model_is_gone(store: StatisticsStore, path: Path) -> None:
    store.record([label(DOG)]).result(TIMEOUT_S)
    store.close()

    with StatisticsStore(path) as later:
        assert later.classes_of("pets", 1) == CLASSES
        assert later.classes_of("pets", 2) is None
        assert later.record([label(CAT)]).result(TIMEOUT_S) == [None]
        assert matrix(later) == [[1, 0], [1, 0]]


def test_a_version_keeps_the_classes_that_it_was_registered_with(store: StatisticsStore) -> None:
    store.register_version("pets", 1, list(CLASSES))

    with pytest.raises(ValueError, match=r"pets version 1 .*\['cat', 'dog'\].*\['dog', 'cat'\].*new version"):
        store.register_version("pets", 1, ("dog", "cat"))
    assert store.classes_of("pets", 1) == CLASSES
    assert store.record([label(DOG)]).result(TIMEOUT_S) == [None]


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_versions_that_cannot_be_stored_are_refused(store: StatisticsStore, version: int) -> None:
    with pytest.raises(ValueError, match=r"1 to 2\^63 - 1"):
        store.register_version("pets", version, CLASSES)


def test_a_version_of_thousands_of_classes_is_refused_in_a_message_of_readable_length(store: StatisticsStore) -> None:
    many = [f"class {index}" for index in range(5_000)]
    store.register_version("many", 1, many)

    with pytest.raises(ValueError, match="5000 in all") as caught:
        store.register_version("many", 1, many[::-1])
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (label(2), "actual is 2; pets version 1 has 2 classes: 0 to 1"),
        (label(-1), "actual is -1"),
        (label(CAT, predicted=2), "predicted is 2"),
        (label(CAT, version=2), "pets version 2 is not registered"),
        (label(CAT, model="cars"), "cars version 1 is not registered"),
    ],
)
def test_labels_that_no_version_can_have_are_refused_with_their_batch(
    store: StatisticsStore, bad: Label, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.record([label(CAT), bad])
    assert store.read() == []


def test_predictions_that_no_version_can_make_are_refused(store: StatisticsStore) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        store.count_predictions("pets", 1, 2)
    with pytest.raises(ValueError, match="not registered"):
        store.count_predictions("pets", 2, CAT)


# Predictions


def test_predictions_are_read_at_once_and_written_within_a_second(store: StatisticsStore, path: Path) -> None:
    store.count_predictions("pets", 1, CAT)
    store.count_predictions("pets", 1, DOG, 3)
    assert predictions(store) == 4
    assert rows(path, "SELECT * FROM predictions") == []

    wait_until(lambda: rows(path, "SELECT * FROM predictions") != [], timeout_s=3)
    assert rows(path, "SELECT * FROM predictions") == [("pets", 1, CAT, 1), ("pets", 1, DOG, 3)]
    assert predictions(store) == 4


def test_predictions_are_written_with_the_next_label_and_on_close(store: StatisticsStore, path: Path) -> None:
    store.count_predictions("pets", 1, CAT, 5)
    store.record([label(CAT)]).result(TIMEOUT_S)
    assert rows(path, "SELECT count FROM predictions") == [(5,)]

    store.count_predictions("pets", 1, CAT, 2)
    store.close()
    assert rows(path, "SELECT count FROM predictions") == [(7,)]


def test_predictions_are_written_once_the_database_is_back(
    store: StatisticsStore, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(statistics_writer, "FLUSH_INTERVAL_S", 0.1)
    with locked(path):
        store.count_predictions("pets", 1, CAT, 5)
        wait_until(lambda: "locked" in caplog.text)
    wait_until(lambda: rows(path, "SELECT count FROM predictions") == [(5,)])


def test_processes_that_share_a_file_add_up(store: StatisticsStore, path: Path) -> None:
    with StatisticsStore(f"sqlite:///{path}") as other:
        other.register_version("pets", 1, CLASSES)
        other.count_predictions("pets", 1, CAT, 10)
        token = secrets.token_bytes(16)
        store.count_predictions("pets", 1, CAT, 1)
        assert store.record([label(DOG, token=token)]).result(TIMEOUT_S) == [None]
        assert other.record([label(CAT, token=token)]).result(TIMEOUT_S) == [DOG]
    assert predictions(store) == 11
    assert matrix(store) == [[1, 0], [0, 0]]


def test_a_read_sees_each_prediction_once_while_they_are_written(
    store: StatisticsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts pass from memory to the file in the middle of each read; it may not miss them, nor see them in both."""
    slow_down(monkeypatch, "select_predictions")
    for counted in range(1, 51):
        store.count_predictions("pets", 1, CAT)
        labelled = store.record([label(DOG)])
        assert predictions(store) == counted
        labelled.result(TIMEOUT_S)


def test_a_read_shows_one_moment_while_others_write(store: StatisticsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, "select_outcomes")
    stop = threading.Event()

    def predict_and_label() -> None:
        while not stop.is_set():
            store.count_predictions("pets", 1, CAT)
            store.record([label(DOG)]).result(TIMEOUT_S)

    writer = threading.Thread(target=predict_and_label)
    writer.start()
    try:
        wait_until(lambda: store.read() != [])
        seen = [store.read()[0] for _ in range(50)]
    finally:
        stop.set()
        writer.join()
    assert all(0 <= each.predictions - each.confusion.total <= 1 for each in seen)
    assert seen[-1].predictions > seen[0].predictions + 20  # reads did not hold up the writer


def slow_down(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """Let commits come between a query and what was read before it."""
    run = getattr(statistics_tables, query)

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.005)
        return run(*arguments)

    monkeypatch.setattr(statistics_tables, query, slowly)


# Many callers


def test_many_threads_lose_and_double_nothing(store: StatisticsStore) -> None:
    threads, each = 16, 60

    def send(number: int) -> None:
        for index in range(each):
            store.count_predictions("pets", 1, DOG)
            sent = [label((number + index) % 2, predicted=DOG) for _ in range(index % 3 + 1)]
            assert store.record(sent).result(TIMEOUT_S) == [None] * len(sent)
            assert store.record(sent[:1]).result(TIMEOUT_S) == [sent[0].actual]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    assert matrix(store) == [[0, threads * each], [0, threads * each]]
    assert predictions(store) == threads * each


def test_processes_that_start_together_share_a_new_file(path: Path) -> None:
    program = (
        "import sys; from serving.statistics import StatisticsStore\n"
        "sys.stdin.readline()\n"
        "for n in range(5):\n"
        "    with StatisticsStore(f'{sys.argv[1]}-{n}') as store:\n"
        "        store.register_version('pets', 1, ['cat', 'dog']); store.count_predictions('pets', 1, 0)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=30)
    assert [process.returncode for process in started] == [0] * 4
    for number in range(5):
        assert rows(Path(f"{path}-{number}"), "SELECT count FROM predictions") == [(4,)]


def test_labels_beyond_the_queue_are_refused_at_once(patient_store: StatisticsStore, path: Path) -> None:
    batch = [label(CAT)] * 10_000
    with locked(path):
        in_hand = patient_store.record([label(DOG)])
        wait_until(in_hand.running)
        waiting = [patient_store.record(batch) for _ in range(10)]
        with pytest.raises(StatisticsUnavailable, match="100,000 labels are waiting"):
            patient_store.record([label(DOG)])
    for future in waiting:
        future.result(TIMEOUT_S)
    assert patient_store.record([label(DOG)]).result(TIMEOUT_S) == [None]
    assert matrix(patient_store) == [[1, 0], [2, 0]]


def test_a_caller_who_gives_up_in_time_is_not_recorded(patient_store: StatisticsStore, path: Path) -> None:
    with locked(path):
        in_hand = patient_store.record([label(CAT)])
        wait_until(in_hand.running)
        assert patient_store.record([label(DOG)]).cancel()
        assert not in_hand.cancel()
    assert patient_store.record([label(CAT)]).result(TIMEOUT_S) == [None]
    assert matrix(patient_store) == [[2, 0], [0, 0]]


def test_close_writes_what_waits_and_refuses_what_comes_later(store: StatisticsStore, path: Path) -> None:
    futures = [store.record([label(DOG)]) for _ in range(50)]
    store.close()
    store.close()

    assert all(future.done() for future in futures)
    assert rows(path, "SELECT count(*) FROM labels") == [(50,)]
    assert not path.with_name("statistics.db-wal").exists()
    for call in (
        lambda: store.record([label(CAT)]),
        lambda: store.count_predictions("pets", 1, CAT),
        lambda: store.register_version("pets", 2, CLASSES),
    ):
        with pytest.raises(StatisticsUnavailable, match="closed"):
            call()


# When the disk or the process fails


def test_commits_are_synced_to_the_disk(path: Path) -> None:
    """A power cut cannot be tried here; SQLite promises to survive it at level FULL (2) of a write-ahead log."""
    with Database(path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


KILLED = """
import os, random, sys, threading, time
from serving.statistics import Label, StatisticsStore
from serving.tokens import PredictionRecord

store = StatisticsStore(sys.argv[1])
store.register_version("pets", 1, ["cat", "dog"])

def load():
    mine = []
    while True:
        store.count_predictions("pets", 1, 0, 10)
        labels = [Label(PredictionRecord(os.urandom(16), "pets", 1, 0, 0.5, 0), random.randrange(2)) for _ in range(9)]
        labels.append(Label(labels[0].record, 1 - labels[0].actual))
        store.record(labels).result()
        final = {each.record.id: each.actual for each in labels}
        os.write(1, "".join(f"{id_.hex()} {actual}\\n" for id_, actual in final.items()).encode())

threads = [threading.Thread(target=load) for _ in range(6)]
for thread in threads:
    thread.start()
"""


def test_no_acknowledged_label_is_lost_when_the_process_is_killed(path: Path) -> None:
    acknowledged: dict[bytes, int] = {}
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]  # it has begun
            killer = threading.Timer(random.uniform(0.05, 0.4), process.send_signal, [signal.SIGKILL])
            killer.start()
            lines += process.stdout.readlines()
            killer.join()
        assert process.returncode == -signal.SIGKILL
        pairs = [line.split() for line in lines if line.endswith("\n")]
        acknowledged |= {bytes.fromhex(id_): int(actual) for id_, actual in pairs}

        with StatisticsStore(path) as store:
            kept = dict(rows(path, "SELECT id, actual FROM labels"))
            assert acknowledged.items() <= kept.items()
            [statistics] = store.read()
            assert statistics.confusion.total == len(kept)  # each once
            assert statistics.predictions >= len(kept)
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert len(acknowledged) > 500


def test_a_locked_file_refuses_labels_until_it_is_free(store: StatisticsStore, path: Path) -> None:
    store.count_predictions("pets", 1, CAT, 3)
    with locked(path):
        fails(store.record([label(DOG)]), "database is locked")
        store.count_predictions("pets", 1, CAT, 4)
        with pytest.raises(StatisticsUnavailable, match="database is locked"):
            store.register_version("pets", 2, CLASSES)
        assert predictions(store) == 7  # reads do not wait for writers
        assert matrix(store) == [[0, 0], [0, 0]]
    assert store.record([label(CAT)]).result(TIMEOUT_S) == [None]
    assert matrix(store) == [[1, 0], [0, 0]]
    assert rows(path, "SELECT count FROM predictions") == [(7,)]


def test_a_full_disk_refuses_labels_until_there_is_room(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT) for _ in range(100)]).result(TIMEOUT_S)
    store.count_predictions("pets", 1, CAT, 3)
    room = path.with_name("statistics.db-wal").stat().st_size + 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # beyond it, the kernel refuses to write to any file
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        fails(store.record([label(DOG) for _ in range(5_000)]), "disk")
        fails(store.record([label(DOG) for _ in range(5_000)]), "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert matrix(store) == [[100, 0], [0, 0]]
    assert store.record([label(DOG)]).result(TIMEOUT_S) == [None]
    assert matrix(store) == [[100, 0], [1, 0]]
    assert predictions(store) == 3
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_was_moved_away_refuses_labels_until_it_is_back(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(TIMEOUT_S)
    aside = path.with_name("aside.db")
    path.rename(aside)

    fails(store.record([label(DOG)]), "No such file")
    with pytest.raises(StatisticsUnavailable, match="No such file"):
        store.read()
    assert not path.exists()

    aside.rename(path)
    assert matrix(store) == [[1, 0], [0, 0]]
    assert store.record([label(CAT)]).result(TIMEOUT_S) == [None]
    assert matrix(store) == [[2, 0], [0, 0]]


def test_labels_that_were_written_to_a_file_as_it_went_away_are_not_acknowledged(
    store: StatisticsStore, path: Path
) -> None:
    def move_away(_: Connection) -> None:
        if path.exists():
            path.rename(path.with_name("aside.db"))

    event.listen(Engine, "commit", move_away)
    try:
        fails(store.record([label(DOG)]), "No such file")
    finally:
        event.remove(Engine, "commit", move_away)


def test_a_restored_backup_is_taken_without_the_log_of_the_old_file(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(TIMEOUT_S)
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    store.register_version("pets", 2, CLASSES)
    store.record([label(DOG)]).result(TIMEOUT_S)

    shutil.copy(backup, path.with_name("restored.db"))
    path.with_name("restored.db").rename(path)
    fails(store.record([label(DOG)]), "was replaced")
    fails(store.record([label(DOG)]), "statistics.db-wal may belong to the earlier file")
    with pytest.raises(StatisticsUnavailable, match="was replaced"):
        store.read()

    path.with_name("statistics.db-wal").unlink()
    path.with_name("statistics.db-shm").unlink(missing_ok=True)
    assert store.record([label(CAT, version=2)]).result(TIMEOUT_S) == [None]  # of a version that the backup lacks
    assert matrix(store) == [[1, 0], [0, 0]]
    assert matrix(store, version=2) == [[1, 0], [0, 0]]


def test_a_file_that_became_read_only_refuses_labels_until_it_can_be_written(ordinary_user: Path) -> None:
    path = ordinary_user / "statistics.db"
    with StatisticsStore(path) as store:
        store.register_version("pets", 1, CLASSES)
        with locked(path):
            path.chmod(0o444)
            fails(store.record([label(DOG)]), "locked")  # so that it connects anew: what is open stays writable
        fails(store.record([label(DOG)]), "readonly")
        with pytest.raises(StatisticsUnavailable, match="readonly"):
            StatisticsStore(path)
        assert matrix(store) == [[0, 0], [0, 0]]

        for file in ordinary_user.iterdir():  # SQLite gives the files beside it the same mode
            file.chmod(0o644)
        assert store.record([label(CAT)]).result(TIMEOUT_S) == [None]
        assert matrix(store) == [[1, 0], [0, 0]]


@pytest.fixture
def ordinary_user(path: Path) -> Iterator[Path]:
    """A folder of someone for whom file modes are binding, which they are not for root."""
    with tempfile.TemporaryDirectory() as folder:
        superuser = os.geteuid() == 0
        if superuser:
            nobody = pwd.getpwnam("nobody").pw_uid
            os.chown(folder, nobody, -1)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            if superuser:
                os.seteuid(0)


def test_counts_that_cannot_be_written_on_close_are_reported(
    store: StatisticsStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.count_predictions("pets", 1, CAT, 42)
    with locked(path):
        store.close()
    assert "42 predictions" in caplog.text


def test_an_outage_is_logged_once_and_so_is_its_end(
    store: StatisticsStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving")
    with locked(path):
        for _ in range(3):
            fails(store.record([label(DOG)]), "locked")
    for _ in range(3):
        store.record([label(DOG)]).result(TIMEOUT_S)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


# Files that are not ours


def test_a_file_from_a_newer_pawserve_is_refused_and_left_alone(store: StatisticsStore, path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = 2")
        connection.execute("DROP TABLE predictions")

    with pytest.raises(ValueError, match=r"newer pawserve \(schema 2; this one knows 1\)"):
        StatisticsStore(path)
    tables = {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"schema_version", "versions", "labels"}


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" * 1000)
    with pytest.raises(StatisticsUnavailable, match="photo.jpg.*not a database"):
        StatisticsStore(tmp_path / "photo.jpg")
    with pytest.raises(StatisticsUnavailable, match="unable to open"):
        StatisticsStore(tmp_path / "missing" / "statistics.db")
    with pytest.raises(StatisticsUnavailable, match="unable to open"):
        StatisticsStore(tmp_path)


@pytest.mark.parametrize(
    "url", ["postgresql://user:secret@db/stats", "sqlite://", "sqlite:///a?mode=ro", "://", "x://"]
)
def test_other_databases_are_refused_without_showing_their_passwords(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///PATH") as caught:
        StatisticsStore(url)
    assert "secret" not in str(caught.value)


def test_paths_may_hold_any_character(tmp_path: Path) -> None:
    odd = tmp_path / "what? 100% #1 & é"
    odd.mkdir()
    with StatisticsStore(odd / "a?mode=ro.db") as store:
        store.register_version("pets", 1, CLASSES)
        store.record([label(CAT)]).result(TIMEOUT_S)
    assert rows(odd / "a?mode=ro.db", "SELECT count(*) FROM labels") == [(1,)]
    assert [json.loads(classes) for (classes,) in rows(odd / "a?mode=ro.db", "SELECT classes FROM versions")] == [
        list(CLASSES)
    ]
