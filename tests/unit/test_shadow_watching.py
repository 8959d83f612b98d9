"""Shadow versions while the server serves: their folder appears, changes, is broken and disappears."""

import shutil
from pathlib import Path

import pytest

from serving.bundle.shadow_version import parse_shadow
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.models.watcher import ModelWatcher
from tests.support.bundles import write_bundle
from tests.support.repositories import served, watched
from tests.support.waiting import eventually

SHADOWS = [parse_shadow("pets/2=0.5")]


def state_of(repository: ModelRepository, version: int) -> tuple[State, str] | None:
    found = [each for each in repository.statuses if each.version.version == version]
    return (found[0].state, found[0].reason) if found else None


def shadow_of(repository: ModelRepository) -> tuple[int, float] | None:
    found = repository.shadow_of(repository.find("pets", None))
    return (found[0].manifest.version, found[1]) if found else None


def test_a_name_is_loaded_though_its_shadow_version_is_broken(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2, content=b"")

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        await watcher.unload("pets")
        await watcher.load("pets")
        assert served(repository) == ["pets/1"]
        assert state_of(repository, 2) is not None

    watched(tmp_path, test, shadows=SHADOWS)


def test_a_name_never_stands_for_its_shadow_version_which_can_be_asked_by_its_number(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        assert served(repository) == ["pets/1"]
        await watcher.load_shadows()
        assert served(repository) == ["pets/1", "pets/2"]
        assert repository.find("pets", None).manifest.version == 1
        assert repository.find("pets", 2).manifest.version == 2
        assert repository.names == ["pets"]
        assert shadow_of(repository) == (2, 0.5)
        assert repository.shadow_of(repository.find("pets", 2)) is None
        await watcher.scan()
        await watcher.load("pets")
        await watcher.load("pets/2")
        await watcher.release(repository.find("pets", 2).manifest.model_version)
        assert repository.loaded == {"pets": 2}
        assert shadow_of(repository) == (2, 0.5)
        write_bundle(tmp_path, "pets", 3)  # newer than the shadow version
        await watcher.scan()
        assert repository.find("pets", None).manifest.version == 3
        assert shadow_of(repository) == (2, 0.5)
        assert served(repository) == ["pets/2", "pets/3"]

    watched(tmp_path, test, shadows=SHADOWS)


def test_a_shadow_version_is_loaded_when_its_folder_appears_replaced_and_retired(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        reason = f"{tmp_path / 'pets'} holds no version 2, only 1: it is loaded once it is there"
        assert state_of(repository, 2) == (State.FAILED, reason)
        assert shadow_of(repository) is None
        await watcher.scan()
        assert repository.failed == {"pets": 1}  # reported once
        folder = write_bundle(tmp_path, "pets", 2)
        await watcher.scan()
        assert state_of(repository, 2) == (State.READY, "")
        first = repository.find("pets", 2)
        shutil.rmtree(folder)
        write_bundle(tmp_path, "pets", 2, temperature=2.0)
        await watcher.scan()
        assert repository.find("pets", 2) is not first
        shutil.rmtree(folder)
        await watcher.scan()
        assert served(repository) == ["pets/1"]
        assert shadow_of(repository) is None
        assert eventually(lambda: state_of(repository, 2) is None)
        await watcher.scan()
        assert state_of(repository, 2) == (State.FAILED, reason)

    watched(tmp_path, test, shadows=SHADOWS)


def test_a_shadow_version_that_fails_to_load_is_reported_and_changes_nothing_else(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2, content=b"no graph")

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        await watcher.scan()
        state = state_of(repository, 2)
        assert state is not None
        assert state[0] is State.FAILED
        assert "8 bytes" in state[1]
        assert served(repository) == ["pets/1"]
        assert shadow_of(repository) is None

    watched(tmp_path, test, shadows=SHADOWS)


def test_an_unloaded_model_has_no_shadow_version_until_it_is_loaded(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        await watcher.unload("pets")
        await watcher.scan()
        assert served(repository) == []
        with pytest.raises(ModelNotFound):
            repository.find("pets", None)
        await watcher.load("pets")
        assert served(repository) == ["pets/1", "pets/2"]
        assert shadow_of(repository) == (2, 0.5)

    watched(tmp_path, test, shadows=SHADOWS)


def test_if_only_the_shadow_version_is_left_the_name_stands_for_nothing(tmp_path: Path) -> None:
    write_bundle(tmp_path, "birds", 1)
    folder = write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        shutil.rmtree(folder)
        await watcher.scan()
        assert served(repository) == ["birds/1", "pets/2"]
        assert repository.names == ["birds"]
        with pytest.raises(
            ModelNotFound, match=r"there is models/birds/versions/1, models/pets/versions/2 \(a shadow\)"
        ):
            repository.find("pets", None)

    watched(tmp_path, test, shadows=SHADOWS)
