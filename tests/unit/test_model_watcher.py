"""Models that clients load and unload, and changes of the model folder."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.bundle.folder import find_bundles, list_names, list_versions
from serving.bundle.manifest import BundleError, Manifest
from serving.models.loader import load_model
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.models.watcher import REMOVED, ModelWatcher
from serving.statistics.store import StatisticsUnavailable
from tests.support.bundles import OPTIONS, write_bundle
from tests.support.waiting import LIMIT_S


def watched(
    models: Path,
    test: Callable[[ModelRepository, ModelWatcher], Awaitable[None]],
    *wanted: str,
    register: Callable[[Manifest], None] = lambda manifest: None,
    keep: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run a test with a repository that serves what is wanted, and its watcher."""
    repository = ModelRepository()
    for bundle in find_bundles(models, wanted, keep):
        repository.add(load_model(bundle, OPTIONS))

    async def run() -> None:
        await test(repository, ModelWatcher(repository, models, wanted, OPTIONS, register, keep, clock))

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


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add bad", "remove", "hide", "show"]),
        st.sampled_from(["cats", "dogs"]),
        st.integers(1, 4),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=20, deadline=None)
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


def test_a_version_that_cannot_be_found_whole_fails_with_the_reason(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        (models / "cats" / "2").symlink_to(models / "nowhere")
        graph = write_bundle(models, "dogs", 2) / "model.fp32.onnx"
        graph.rename(models / "graph")
        graph.symlink_to(models / "elsewhere")
        await watcher.scan()
        reasons = {str(status.version): status.reason for status in repository.statuses if not status.model}
        assert reasons["cats/2"].endswith(f"cats/2 is a link to {models / 'nowhere'}, which is not there")
        assert reasons["dogs/2"] == f"{graph} cannot be read: No such file or directory"
        assert served(repository) == ["cats/1", "dogs/1"]
        (models / "graph").rename(models / "elsewhere")
        (models / "cats" / "2").unlink()
        (models / "dogs" / "2" / ".#model.json").symlink_to("user@host.1234")  # a lock of Emacs
        await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/2"]
        assert not [status for status in repository.statuses if status.state is State.FAILED]

    watched(models, test)


def test_a_name_that_cannot_be_read_keeps_its_versions_and_stops_no_other(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        def iterdir(path: Path) -> Iterator[Path]:
            if path == models / "cats":
                raise PermissionError(13, "Permission denied", str(path))  # root may read every folder
            return readable(path)

        readable = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", iterdir)
        write_bundle(models, "dogs", 2)
        for _ in range(3):
            await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/2"]
        assert caplog.text.count(f"{models / 'cats'} cannot be read (Permission denied)") == 1

    watched(models, test)


def test_what_is_never_served_is_logged_once(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        write_bundle(models, "cats", 2).rename(models / "cats" / "0002")
        (models / "cats" / "v3").mkdir()
        (models / "cats" / "4").touch()
        (models / "My Cats").mkdir()
        (models / "birds").mkdir()
        (models / "notes.txt").touch()
        (models / ".cache").mkdir()
        for _ in range(3):
            await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]
        assert [record.message.removeprefix(f"{models}/") for record in caplog.records] == [
            "My Cats is not the name of a model: a-z, 0-9, '.', '_' and '-' are allowed",
            f"birds holds no version: a bundle belongs in {models}/birds/1",
            "cats/0002 is not a version: versions are 1, 2, 3, ..., without leading zeros",
            "cats/4 is not a folder",
            "cats/v3 is not a version: versions are 1, 2, 3, ..., without leading zeros",
        ]

    caplog.set_level("WARNING")
    watched(models, test)


def test_a_start_without_versions_says_what_was_found_instead(tmp_path: Path) -> None:
    (tmp_path / "cats" / "v1").mkdir(parents=True)
    for wanted in ([], ["cats"]):
        with pytest.raises(BundleError, match="v1 is not a version: versions are 1, 2, 3"):
            find_bundles(tmp_path, wanted)


def test_a_folder_that_cannot_be_read_is_logged_once(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        scans = 0

        async def scan(*, retry: bool = False) -> None:
            nonlocal scans
            scans += 1
            raise OSError(5, "Input/output error")

        watcher.scan = scan  # type: ignore[method-assign]
        watching = asyncio.create_task(watcher.watch(0.001))
        while scans < 5:
            await asyncio.sleep(0.001)
        watching.cancel()

    watched(models, test)
    assert caplog.text.count("cannot be read (Input/output error)") == 1


def test_a_folder_that_cannot_be_read_retires_nothing(models: Path) -> None:
    async def test(repository: ModelRepository, watcher: ModelWatcher) -> None:
        shutil.rmtree(models)
        with pytest.raises(OSError, match="No such file"):
            await watcher.scan()
        assert served(repository) == ["cats/1", "dogs/1"]

    watched(models, test)
