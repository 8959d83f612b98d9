"""Models that clients load and unload, and changes of the model folder."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.bundle.folder import find_bundles, list_names, list_versions
from serving.bundle.manifest import BundleError, Manifest
from serving.models.repository import ModelNotFound, ModelRepository
from serving.models.version_loads import REMOVED
from serving.models.watcher import ModelWatcher
from serving.statistics.store import StatisticsUnavailable
from tests.support.bundles import write_bundle
from tests.support.repositories import served, watched


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


def test_a_version_that_failed_is_tried_again_after_growing_pauses_and_at_once_on_request(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, attempts, error = [0.0], [0.0], [OSError("the disk answers slowly")]

    def register(manifest: Manifest) -> None:
        attempts.append(now[0])
        if error:
            raise error[0]

    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2)
        while now[0] < 1000:
            await watcher.scan()
            now[0] += 5
        assert attempts[1:] == [0, 10, 30, 70, 150, 310, 610, 910]
        assert served(repository) == ["cats/1", "dogs/1"]
        assert "the disk answers slowly" in [status.reason for status in repository.statuses]
        assert caplog.text.count("cats/versions/2 failed to load: the disk answers slowly") == 1
        assert repository.failed == {"cats": 1}
        error[0] = StatisticsUnavailable("the database is away")
        await watcher.scan(retry=True)
        assert caplog.text.count("failed to load: the database is away") == 1
        error.clear()
        await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]
        await watcher.scan(retry=True)
        assert served(repository) == ["cats/2", "dogs/1"]

    watched(models, test, register=register, clock=lambda: now[0])


def test_removing_a_version_brings_the_earlier_one_back_and_a_removed_one_may_return(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2)
        await watcher.scan()
        assert served(repository) == ["cats/2", "dogs/1"]
        (models / "cats" / "2").rename(models / "bad")
        await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]
        (models / "bad").rename(models / "cats" / "2")
        await watcher.scan()
        assert served(repository) == ["cats/2", "dogs/1"]
        shutil.rmtree(models / "cats" / "2")
        await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]
        shutil.rmtree(models / "cats")  # a server that starts now serves dogs only
        await watcher.scan()
        assert served(repository) == ["dogs/1"]
        shutil.rmtree(models / "dogs")  # and one that starts now does not start
        await watcher.scan()
        assert served(repository) == ["dogs/1"]
        assert [status.reason for status in repository.statuses if status.model] == [REMOVED]

    watched(models, test)


def test_a_folder_that_vanishes_takes_no_model_away_after_an_unload(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2, content=b"")
        await watcher.scan()
        await watcher.unload("cats")
        for name in ("cats", "dogs"):
            shutil.rmtree(models / name)
        await watcher.scan()
        assert served(repository) == ["dogs/1"]
        write_bundle(models, "cats", 3)  # the folder is back, and has no dogs
        await watcher.scan()
        assert served(repository) == []

    watched(models, test)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add bad", "remove", "hide", "show"]),
        st.sampled_from(["cats", "dogs"]),
        st.integers(1, 4),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=20)
@given(
    changes=CHANGES,
    keep=st.integers(1, 3),
    wanted=st.sampled_from([[], ["cats"], ["cats", "dogs"], ["cats/1", "cats"], ["cats/1"]]),
)
@example(changes=[("add bad", "cats", 2), ("remove", "dogs", 1)], keep=1, wanted=[])
def test_after_any_changes_of_the_folder_the_same_is_served_as_after_a_restart(
    changes: list[tuple[str, str, int]], keep: int, wanted: list[str]
) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        for change, name, version in changes:
            folder, hidden = models / name / str(version), models / name / f".{version}.hidden"
            if change in ("remove", "hide") and folder.exists():
                shutil.rmtree(folder) if change == "remove" or hidden.exists() else folder.rename(hidden)
            elif change == "show" and hidden.exists() and not folder.exists():
                hidden.rename(folder)
            elif change.startswith("add") and not folder.exists():
                write_bundle(models, name, version, content=b"" if change == "add bad" else None)
            before = served(repository)
            await watcher.scan()
            try:
                bundles = find_bundles(models, wanted, keep)
                for bundle in bundles:
                    bundle.read(bundle.manifest.artifacts[0])
            except BundleError:  # a server would not start
                there = {name for name in list_names(models) if list_versions(models / name)}
                kept = {each.split("/")[0] for each in before} & (there or {"cats", "dogs"})
                assert kept <= {each.split("/")[0] for each in served(repository)}
            else:
                assert sorted(served(repository)) == sorted(str(bundle.manifest.model_version) for bundle in bundles)

    with TemporaryDirectory() as folder:
        models = Path(folder)
        write_bundle(models, "cats")
        write_bundle(models, "dogs")
        watched(models, test, *wanted, keep=keep)
