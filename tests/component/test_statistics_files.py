"""Files of other programs, and URLs that are not supported."""

import json
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from tests.support.statistics import CAT, CLASSES, PETS, label, rows
from tests.support.waiting import LIMIT_S


def test_a_file_of_a_newer_pawserve_is_rejected_and_not_changed(store: StatisticsStore, path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = 99")
        connection.execute("DROP TABLE predictions")

    with pytest.raises(ValueError, match=r"newer pawserve \(schema 99; this one supports 3\)"):
        StatisticsStore(path)
    tables = {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "labels" in tables
    assert "predictions" not in tables


def test_other_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" * 1000)
    with pytest.raises(StatisticsUnavailable, match="photo.jpg.*not a database"):
        StatisticsStore(tmp_path / "photo.jpg")
    with pytest.raises(StatisticsUnavailable, match="unable to open"):
        StatisticsStore(tmp_path / "missing" / "statistics.db")
    with pytest.raises(StatisticsUnavailable, match="unable to open"):
        StatisticsStore(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@db/stats",
        "postgresql://user:secret@db",
        "postgresql://user:secret@db:port/stats",
        "sqlite://",
        "sqlite:///a?mode=ro",
        "://",
        "x://",
    ],
)
def test_other_databases_are_rejected_without_showing_their_passwords(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///PATH") as caught:
        StatisticsStore(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value)).replace(url, "")


def test_paths_may_contain_any_character(tmp_path: Path) -> None:
    odd = tmp_path / "what? 100% #1 & é"
    odd.mkdir()
    with StatisticsStore(odd / "a?mode=ro.db") as store:
        store.register_version(PETS, CLASSES)
        store.record([label(CAT)]).result(LIMIT_S)
    assert rows(odd / "a?mode=ro.db", "SELECT count(*) FROM labels") == [(1,)]
    assert [json.loads(classes) for (classes,) in rows(odd / "a?mode=ro.db", "SELECT classes FROM versions")] == [
        list(CLASSES)
    ]
