"""Folders to write that are mount points, as a container's volumes are, or links: they cannot be replaced."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.system.files import filling
from tests.support.commands import ROOT
from training.runs.folder import building, partial_folder

MOUNT = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount --bind "$1" "$1" && shift && exec "$@"', "sh"]

FILL = """
from pathlib import Path
from serving.system.files import filling
with filling(Path("volume")) as folder:
    (folder / "train").mkdir()
    (folder / "shards.json").write_text("whole")
"""
BUILD = """
import sys
from pathlib import Path
from training.runs.folder import building
with building(Path("volume"), resume=False) as folder:
    (folder / "plots").mkdir()
    for name in ("checkpoint.pt", "run.json"):
        (folder / name).write_text(sys.argv[1])
"""


def in_mounted_folder(where: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    volume = where / "volume"
    volume.mkdir(exist_ok=True)
    if shutil.which("unshare") is None or subprocess.run([*MOUNT, volume, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let its users mount folders")
    python = [sys.executable, "-c", f"import os; os.chdir({str(where)!r})\n{code}", *arguments]
    return subprocess.run([*MOUNT, volume, *python], cwd=ROOT, capture_output=True, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_mounted_folder_is_filled(tmp_path: Path) -> None:
    finished = in_mounted_folder(tmp_path, FILL)
    assert finished.returncode == 0, finished.stderr
    assert names(tmp_path / "volume") == ["shards.json", "train"]


def test_a_run_in_a_mounted_folder_replaces_the_one_before(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        finished = in_mounted_folder(tmp_path, BUILD, text)
        assert finished.returncode == 0, finished.stderr
    volume = tmp_path / "volume"
    assert names(volume) == ["plots", "run.json", "volume.previous"]
    assert (volume / "run.json").read_text() == "third"
    assert (volume / "volume.previous" / "run.json").read_text() == "second"


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    with filling(tmp_path / "link") as folder:
        (folder / "file").write_text("sample")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "link") == ["file"]
    (tmp_path / "link" / "file").unlink()
    for text in ("first", "second"):
        with building(tmp_path / "link", resume=False) as folder:
            assert folder == partial_folder(tmp_path / "disk" / "run")
            (folder / "run.json").write_text(text)
    assert (tmp_path / "link" / "run.json").read_text() == "second"
    assert (tmp_path / "disk" / "run.previous" / "run.json").read_text() == "first"


def test_the_working_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with building(Path(), resume=False) as folder:
        (folder / "run.json").write_text("whole")
    assert (tmp_path / "here" / "run.json").read_text() == "whole"


def test_a_run_that_cannot_be_written_is_rejected_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = tmp_path / "file" / "run"
    with (
        pytest.raises(ValueError, match=f"--run {run} cannot be written: Not a directory"),
        building(run, resume=False),
    ):
        pass
