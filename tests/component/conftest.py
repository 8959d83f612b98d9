"""Fixtures of tests on databases and servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.statistics import sqlite as statistics_sqlite
from serving.statistics.store import StatisticsStore
from tests.support.servers import address, client  # noqa: F401 - pytest finds them here
from tests.support.statistics import CLASSES
from tests.support.waiting import LIMIT_S


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a SQLite file that is not there yet."""
    monkeypatch.setattr(statistics_sqlite, "BUSY_TIMEOUT_S", 0.2)  # tests need not wait as long as users might
    return tmp_path / "statistics.db"


@pytest.fixture
def store(path: Path) -> Iterator[StatisticsStore]:
    """Statistics in that file, of one version."""
    with StatisticsStore(path) as store:
        store.register_version("pets", 1, CLASSES)
        yield store


@pytest.fixture
def patient_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatisticsStore]:
    """Waits for a lock as long as a test may take, so that labels can be made to gather behind it."""
    monkeypatch.setattr(statistics_sqlite, "BUSY_TIMEOUT_S", LIMIT_S)
    with StatisticsStore(path) as store:
        store.register_version("pets", 1, CLASSES)
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty database: a SQLite file's, and PostgreSQL's where there is one."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql").create())
    return f"sqlite:///{request.getfixturevalue('path')}"


@pytest.fixture
def any_store(url: str) -> Iterator[StatisticsStore]:
    """Statistics of one version, in every kind of database."""
    with StatisticsStore(url) as store:
        store.register_version("pets", 1, CLASSES)
        yield store
