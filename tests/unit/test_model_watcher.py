"""Models that clients load and unload, and changes of the model folder."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError, Manifest
from serving.models.loader import load_model
from serving.models.repository import ModelNotFound, ModelRepository
from serving.models.watcher import ModelWatcher
from serving.statistics.store import StatisticsUnavailable
from tests.support.bundles import OPTIONS, write_bundle
from tests.support.waiting import LIMIT_S


def watched(
    models: Path,
    test: Callable[[ModelRepository, ModelWatcher], Awaitable[None]],
    *wanted: str,
    register: Callable[[Manifest], None] = lambda manifest: None,
) -> None:
    """Run a test with a repository that serves what is wanted, and its watcher."""
    repository = ModelRepository()
    for bundle in find_bundles(models, wanted):
        repository.add(load_model(bundle, OPTIONS))

    async def run() -> None:
        await test(repository, ModelWatcher(repository, models, wanted, OPTIONS, register))

    try:
        asyncio.run(asyncio.wait_for(run(), LIMIT_S))
    finally:
        repository.close()


def served(repository: ModelRepository) -> list[str]:
    return [f"{model.manifest.name}/{model.manifest.version}" for model in repository.models]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path, "cats")
    write_bundle(tmp_path, "dogs")
    return tmp_path


def test_an_unloaded_model_stays_unloaded_until_it_is_loaded_in_its_newest_version(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.unload("cats")
        assert served(repository) == ["dogs/1"]
        with pytest.raises(ModelNotFound, match="there is models/dogs/versions/1"):
            await watcher.unload("cats")
        write_bundle(models, "cats", 2)
        await watcher.scan()
        assert served(repository) == ["dogs/1"]
        await watcher.load("cats")
        assert served(repository) == ["cats/2", "dogs/1"]
        await watcher.load("cats")  # again changes nothing
        write_bundle(models, "cats", 3)
        await watcher.scan()
        assert served(repository) == ["cats/3", "dogs/1"]
        assert repository.loaded == {"cats": 3, "dogs": 1}
        assert not repository.failed

    watched(models, test)


def test_a_model_that_was_not_wanted_can_be_loaded_and_a_version_pinned(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.scan()
        assert served(repository) == ["cats/1"]
        await watcher.load("dogs/1")
        write_bundle(models, "dogs", 2)
        await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]

    watched(models, test, "cats")


@pytest.mark.parametrize(("name", "kind"), [("birds", ModelNotFound), ("cats/9", ModelNotFound), ("..", ValueError)])
def test_a_model_that_is_not_there_cannot_be_loaded(models: Path, name: str, kind: type[Exception]) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        with pytest.raises(kind):
            await watcher.load(name)
        assert served(repository) == ["cats/1", "dogs/1"]

    watched(models, test)


def test_loading_a_bad_version_raises_its_reason_and_loads_no_older_one(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2, content=b"")
        for _ in range(2):
            with pytest.raises(BundleError, match="0 bytes"):
                await watcher.load("cats")
        assert served(repository) == ["cats/1", "dogs/1"]
        assert repository.failed == {"cats": 2}
        await watcher.scan()  # nothing has changed: it is not tried again
        assert repository.failed == {"cats": 2}
        await watcher.unload("cats")
        with pytest.raises(BundleError, match="0 bytes"):
            await watcher.load("cats")
        assert served(repository) == ["dogs/1"]

    watched(models, test)


def test_statistics_that_cannot_be_written_delay_a_version(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def register(manifest: Manifest) -> None:
        if broken:
            raise StatisticsUnavailable("the disk is full")

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2)
        for _ in range(3):
            await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]
        assert caplog.text.count("is not served yet: the disk is full") == 1  # and not at every scan
        assert "the disk is full" in [status.reason for status in repository.statuses]
        broken.clear()
        await watcher.scan()
        assert served(repository) == ["cats/2", "dogs/1"]

    watched(models, test, register=register)


def test_a_folder_that_cannot_be_read_retires_nothing(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        shutil.rmtree(models)
        with pytest.raises(OSError, match="No such file"):
            await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]

    watched(models, test)
