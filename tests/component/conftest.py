"""Fixtures of tests on databases and servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.statistics.store import StatisticsStore
from tests.support.bundles import write_bundle
from tests.support.fake_tensorrt import fake_gpu  # noqa: F401 - pytest finds it here
from tests.support.servers import HttpServerProcess, client, http_server, models  # noqa: F401 - pytest finds them here
from tests.support.statistics import CLASSES, PETS, SHORT_S, Clock
from tests.support.waiting import LIMIT_S


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServerProcess]:
    """A server with HTTP for one test file; its model tells colours apart."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    with http_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def address(server: HttpServerProcess) -> str:
    """The address of `server` for gRPC."""
    return server.address


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a SQLite file that does not exist yet."""
    return tmp_path / "statistics.db"


@pytest.fixture
def store(path: Path) -> Iterator[StatisticsStore]:
    """Statistics of one version in that file; it does not wait long for locks."""
    with StatisticsStore(path, lock_timeout_s=SHORT_S) as store:
        store.register_version(PETS, CLASSES)
        yield store


@pytest.fixture
def patient_store(path: Path) -> Iterator[StatisticsStore]:
    """Waits for a lock as long as a test may take, so that labels gather behind it."""
    with StatisticsStore(path, lock_timeout_s=LIMIT_S) as store:
        store.register_version(PETS, CLASSES)
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database: a SQLite file, and PostgreSQL where it is installed."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql").create())
    return f"sqlite:///{request.getfixturevalue('path')}"


@pytest.fixture
def clock() -> Clock:
    """The time of day of `any_store`."""
    return Clock()


@pytest.fixture
def any_store(url: str, clock: Clock) -> Iterator[StatisticsStore]:
    """Statistics of one version in each kind of database; their clock is `clock`."""
    with StatisticsStore(url, clock=clock) as store:
        store.register_version(PETS, CLASSES)
        yield store
