"""Model folders with versions that cannot be found, read or served."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.models.repository import ModelRepository, State
from serving.models.watcher import ModelWatcher
from tests.support.bundles import write_bundle
from tests.support.repositories import served, watched


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
