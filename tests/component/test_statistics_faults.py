"""SQLite files that are locked, full, deleted or read-only: only stored labels are acknowledged."""

import os
import pwd
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import StatisticsStore, StatisticsUnavailable, open_database
from tests.support.statistics import CAT, CLASSES, DOG, PETS, SHORT_S, fails, label, locked, matrix, predictions, rows
from tests.support.waiting import LIMIT_S


def test_commits_are_synced_to_the_disk(path: Path) -> None:
    """A power failure cannot be tested here; SQLite survives it at level FULL (2) of a write-ahead log."""
    with open_database(path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


KILLED = """
import os, random, sys, threading, time
from serving.statistics.store import Label, StatisticsStore
from serving.bundle.model_version import ModelVersion
from serving.tokens.tokens import PredictionRecord

PETS = ModelVersion("pets", 1)
store = StatisticsStore(sys.argv[1])
store.register_version(PETS, ["cat", "dog"])

def load():
    mine = []
    while True:
        store.count_predictions(PETS, 0, 10)
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
            lines = [process.stdout.readline() for _ in range(random.randrange(50, 500))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        pairs = [line.split() for line in lines if line.endswith("\n")]
        acknowledged |= {bytes.fromhex(id_): int(actual) for id_, actual in pairs}

        with StatisticsStore(path) as store:
            kept = dict(rows(path, "SELECT id, actual FROM labels"))
            assert acknowledged.items() <= kept.items()
            [statistics] = store.read()
            assert statistics.confusion.total == len(kept)  # each counted once
            assert statistics.predictions >= len(kept)
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_locked_file_rejects_labels_until_it_is_unlocked(store: StatisticsStore, path: Path) -> None:
    store.count_predictions(PETS, CAT, 3)
    with locked(path):
        fails(store.record([label(DOG)]), "database is locked")
        store.count_predictions(PETS, CAT, 4)
        with pytest.raises(StatisticsUnavailable, match="database is locked"):
            store.register_version(ModelVersion("pets", 2), CLASSES)
        assert predictions(store) == 7  # reads do not wait for writers
        assert matrix(store) == [[0, 0], [0, 0]]
    assert store.record([label(CAT)]).result(LIMIT_S) == [None]
    assert matrix(store) == [[1, 0], [0, 0]]
    assert rows(path, "SELECT count FROM predictions") == [(7,)]


def test_a_full_disk_rejects_labels_until_there_is_space(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT) for _ in range(100)]).result(LIMIT_S)
    store.count_predictions(PETS, CAT, 3)
    size = path.with_name("statistics.db-wal").stat().st_size + 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # beyond it, the kernel refuses to write to any file
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        fails(store.record([label(DOG) for _ in range(5_000)]), "disk")
        fails(store.record([label(DOG) for _ in range(5_000)]), "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert matrix(store) == [[100, 0], [0, 0]]
    assert store.record([label(DOG)]).result(LIMIT_S) == [None]
    assert matrix(store) == [[100, 0], [1, 0]]
    assert rows(path, "SELECT sum(count) FROM predictions") == [(3,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_moved_file_rejects_labels_until_it_is_back(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(LIMIT_S)
    aside = path.with_name("aside.db")
    path.rename(aside)

    fails(store.record([label(DOG)]), "was deleted")
    with pytest.raises(StatisticsUnavailable, match="was deleted"):
        store.read()
    assert not path.exists()

    aside.rename(path)
    assert matrix(store) == [[1, 0], [0, 0]]
    assert store.record([label(CAT)]).result(LIMIT_S) == [None]
    assert matrix(store) == [[2, 0], [0, 0]]


def test_labels_written_while_the_file_is_moved_are_not_acknowledged(store: StatisticsStore, path: Path) -> None:
    def move_away(_: Connection) -> None:
        if path.exists():
            path.rename(path.with_name("aside.db"))

    event.listen(Engine, "commit", move_away)
    try:
        fails(store.record([label(DOG)]), "was deleted")
    finally:
        event.remove(Engine, "commit", move_away)


def test_a_restored_backup_is_used_only_without_the_log_of_the_old_file(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(LIMIT_S)
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    store.register_version(ModelVersion("pets", 2), CLASSES)
    store.record([label(DOG)]).result(LIMIT_S)

    shutil.copy(backup, path.with_name("restored.db"))
    path.with_name("restored.db").rename(path)
    fails(store.record([label(DOG)]), "was replaced")
    fails(store.record([label(DOG)]), "statistics.db-wal may belong to the earlier file")
    with pytest.raises(StatisticsUnavailable, match="was replaced"):
        store.read()

    path.with_name("statistics.db-wal").unlink()
    path.with_name("statistics.db-shm").unlink(missing_ok=True)
    assert store.record([label(CAT, version=2)]).result(LIMIT_S) == [None]  # of a version that the backup lacks
    assert matrix(store) == [[1, 0], [0, 0]]
    assert matrix(store, version=2) == [[1, 0], [0, 0]]


def test_an_emptied_file_rejects_labels_until_a_backup_is_restored(store: StatisticsStore, path: Path) -> None:
    """New statistics are not started unnoticed."""
    store.record([label(CAT)]).result(LIMIT_S)
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.with_name("backup.db")
    shutil.copy(path, backup)
    os.truncate(path, 0)

    fails(store.record([label(DOG)]), "restore a backup")
    fails(store.record([label(DOG)]), "is empty: restore a backup")
    with pytest.raises(StatisticsUnavailable, match="is empty"):
        store.read()

    for file in (path, path.with_name("statistics.db-wal"), path.with_name("statistics.db-shm")):
        file.unlink(missing_ok=True)
    backup.rename(path)
    assert store.record([label(CAT)]).result(LIMIT_S) == [None]
    assert matrix(store) == [[2, 0], [0, 0]]


def test_an_emptied_file_is_restored_from_its_log(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(LIMIT_S)
    os.truncate(path, 0)
    fails(store.record([label(DOG)]), "is empty")  # instead of being written where no reader finds it
    assert store.record([label(CAT)]).result(LIMIT_S) == [None]
    assert matrix(store) == [[2, 0], [0, 0]]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_truncated_file_rejects_labels(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT)]).result(LIMIT_S)
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    store.record([label(CAT)]).result(LIMIT_S)
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 8192 * 4096)
    for _ in range(3):
        fails(store.record([label(DOG)]), "truncated|damaged")


def test_a_vacuum_fails_at_most_one_request(store: StatisticsStore, path: Path) -> None:
    store.record([label(CAT, at_ms=1) for _ in range(5_000)]).result(LIMIT_S)
    store.delete_labels(before_ms=2, limit=10_000)
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    rows(path, "VACUUM")
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with suppress(StatisticsUnavailable):
        store.record([label(DOG)]).result(LIMIT_S)
    store.record([label(DOG)]).result(LIMIT_S)
    assert matrix(store)[DOG][CAT] in (1, 2)


def test_a_read_only_file_rejects_labels_until_it_is_writable(ordinary_user: Path) -> None:
    path = ordinary_user / "statistics.db"
    with StatisticsStore(path, lock_timeout_s=SHORT_S) as store:
        store.register_version(PETS, CLASSES)
        with locked(path):
            path.chmod(0o444)
            fails(store.record([label(DOG)]), "locked")  # so that it connects again: an open file stays writable
        fails(store.record([label(DOG)]), "readonly")
        with pytest.raises(StatisticsUnavailable, match="readonly"):
            StatisticsStore(path)
        assert matrix(store) == [[0, 0], [0, 0]]

        for file in ordinary_user.iterdir():  # SQLite gives the files beside it the same mode
            file.chmod(0o644)
        assert store.record([label(CAT)]).result(LIMIT_S) == [None]
        assert matrix(store) == [[1, 0], [0, 0]]


@pytest.fixture
def ordinary_user(path: Path) -> Iterator[Path]:
    """A folder of an ordinary user: file modes do not bind root."""
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
    store.count_predictions(PETS, CAT, 42)
    with locked(path):
        store.close()
    assert "42 predictions" in caplog.text


def test_an_outage_and_its_end_are_each_logged_once(
    store: StatisticsStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serving")
    with locked(path):
        for _ in range(3):
            fails(store.record([label(DOG)]), "locked")
    for _ in range(3):
        store.record([label(DOG)]).result(LIMIT_S)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
