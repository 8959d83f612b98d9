"""The primary version while the server runs: promoted, rolled back, missing, damaged."""

import shutil
from pathlib import Path

import pytest

from serving.bundle.primary_choice import FILE, PrimaryChoice, write_choice
from serving.bundle.shadow_version import parse_shadow
from serving.models.primaries import apply_choices
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.models.watcher import ModelWatcher
from tests.support.bundles import write_bundle
from tests.support.repositories import served, watched
from tests.support.waiting import eventually


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Versions 1 to 3 of one model."""
    for number in (1, 2, 3):
        write_bundle(tmp_path, "pets", number)
    return tmp_path


def primary_version(repository: ModelRepository, name: str = "pets") -> int:
    return repository.find(name, None).manifest.version


def promote(models: Path, version: int | None) -> None:
    write_choice(models / "pets", PrimaryChoice(version))


def test_a_promoted_version_is_loaded_and_becomes_primary_and_the_newest_stays_loaded(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        assert primary_version(repository) == 3
        promote(models, 1)
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/3"])
        write_bundle(models, "pets", 4)  # is served, but not primary
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/4"])
        promote(models, 2)
        await watcher.scan()
        assert primary_version(repository) == 2
        assert eventually(lambda: served(repository) == ["pets/2", "pets/4"])
        promote(models, None)
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (4, ["pets/4"])
        (models / "pets" / FILE).unlink()
        await watcher.scan()
        assert primary_version(repository) == 4

    watched(models, test)


def test_a_server_starts_with_the_promoted_version(models: Path) -> None:
    promote(models, 1)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        apply_choices(repository, models)
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/3"])
        await watcher.scan()
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/3"])
        assert repository.loaded == {"pets": 2}

    watched(models, test)


def test_a_promoted_shadow_is_primary_and_no_shadow_until_it_is_rolled_back(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        await watcher.load_shadows()
        two, three = repository.find("pets", 2), repository.find("pets", 3)
        assert primary_version(repository) == 2
        assert repository.shadow_of(two) == (three, 1.0)
        promote(models, 3)
        await watcher.scan()
        assert repository.find("pets", None) is three
        assert (repository.shadow_of(two), repository.shadow_of(three)) == (None, None)
        assert repository.shadow_share(three.manifest.model_version) == 0.0
        assert served(repository) == ["pets/2", "pets/3"]
        promote(models, 2)  # what a rollback writes
        await watcher.scan()
        assert primary_version(repository) == 2
        assert repository.shadow_of(two) == (three, 1.0)
        assert repository.loaded == {"pets": 2}  # nothing was loaded again

    watched(models, test, shadows=[parse_shadow("pets/3")])


@pytest.mark.parametrize("content", ["", "{", "[" * 10_000, '{"format": 1, "primary": "x"}'])
def test_a_damaged_choice_is_reported_once_and_changes_nothing(
    models: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    promote(models, 1)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        apply_choices(repository, models)
        (models / "pets" / FILE).write_text(content)
        for _ in range(3):
            with (models / "pets" / FILE).open("a") as file:
                file.write(" ")  # as while a large file is written
            await watcher.scan()
            assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/3"])
        assert sum("primary.json cannot be used" in record.message for record in caplog.records) == 1
        promote(models, 2)
        await watcher.scan()
        assert primary_version(repository) == 2

    watched(models, test)


def test_a_choice_that_is_not_in_the_folder_is_reported_and_followed_when_it_is(models: Path) -> None:
    promote(models, 1)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        apply_choices(repository, models)
        promote(models, 9)
        for _ in range(2):
            await watcher.scan()
            assert primary_version(repository) == 1
        [missing] = [status for status in repository.statuses if status.version.version == 9]
        assert missing.state is State.FAILED
        assert "holds only 1, 2, 3" in missing.reason
        write_bundle(models, "pets", 9)
        await watcher.scan()
        assert primary_version(repository) == 9
        promote(models, 10)
        await watcher.scan()
        promote(models, 9)
        await watcher.scan()
        assert [status.version.version for status in repository.statuses if status.state is State.FAILED] == []

    watched(models, test)


def test_a_promoted_version_that_fails_to_load_changes_nothing(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        promote(models, 1)
        await watcher.scan()
        shutil.rmtree(models / "pets" / "2")
        write_bundle(models, "pets", 2, content=b"damaged")
        promote(models, 2)
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/3"])
        assert [status.version.version for status in repository.statuses if status.state is State.FAILED] == [2]
        shutil.rmtree(models / "pets" / "2")
        write_bundle(models, "pets", 2)
        await watcher.scan(retry=True)
        assert primary_version(repository) == 2

    watched(models, test)


def test_if_the_promoted_version_is_deleted_the_newest_becomes_primary(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        promote(models, 1)
        await watcher.scan()
        shutil.rmtree(models / "pets" / "1")
        await watcher.scan()
        assert primary_version(repository) == 3
        assert eventually(lambda: served(repository) == ["pets/3"])

    watched(models, test)


def test_a_model_whose_folder_is_deleted_is_retired_with_its_promoted_version(models: Path) -> None:
    write_bundle(models, "birds", 1)

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        promote(models, 1)
        await watcher.scan()
        shutil.rmtree(models / "pets")
        await watcher.scan()
        assert eventually(lambda: served(repository) == ["birds/1"])
        shutil.rmtree(models / "birds")  # nothing is left: a file system that fails takes no model away
        await watcher.scan()
        assert served(repository) == ["birds/1"]

    watched(models, test)


def test_unload_and_load_keep_the_choice(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        promote(models, 1)
        await watcher.scan()
        await watcher.unload("pets")
        with pytest.raises(ModelNotFound):
            repository.find("pets", None)
        promote(models, 2)
        await watcher.scan()
        with pytest.raises(ModelNotFound):
            repository.find("pets", None)
        await watcher.load("pets")
        assert primary_version(repository) == 2
        await watcher.load("pets/1")  # by its number only
        assert primary_version(repository) == 2
        await watcher.release(repository.find("pets", 1).manifest.model_version)
        assert primary_version(repository) == 2

    watched(models, test)


def test_versions_that_the_operator_named_are_not_replaced_by_a_promoted_one(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        assert primary_version(repository) == 2
        promote(models, 3)
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (2, ["pets/1", "pets/2"])
        promote(models, 1)  # one of those that are served
        await watcher.scan()
        assert (primary_version(repository), served(repository)) == (1, ["pets/1", "pets/2"])

    watched(models, test, "pets/1", "pets/2")


def test_a_name_switches_in_one_step_while_requests_run(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        before = repository.find("pets", None)
        with repository.use(before):
            promote(models, 1)
            await watcher.scan()
            promote(models, 2)
            await watcher.scan()
            assert primary_version(repository) == 2
            assert repository.find("pets", 3) is before
        with repository.use(repository.find("pets", None)):
            pass

    watched(models, test)
