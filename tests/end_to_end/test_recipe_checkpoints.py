"""Checkpoints that cannot be used, and a disk that is full while one is written."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import WarmProcess, run_here
from tests.support.recipes import fit, killed_in_epoch

pytestmark = pytest.mark.slow


def test_a_checkpoint_of_other_images_is_rejected(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(drawings, data)
    arguments = ["fit", "--recipe", str(recipes / "whole.yaml"), "--data", str(data)]
    arguments += ["--run", str(tmp_path / "run"), "--cache", str(shared_cache), "--checkpoint-every", "0"]
    WarmProcess(killed_in_epoch, 2, *arguments).finish()
    next((data / "train/cats").iterdir()).unlink()
    rejected = run_here("training", *arguments, "--resume")
    assert rejected.returncode == 1
    assert "images: " in rejected.stderr
    assert "--resume to continue" not in rejected.stderr  # it would be rejected again
    assert "Traceback" not in rejected.stderr


def test_resuming_without_a_checkpoint_is_rejected(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    finished = fit(recipes / "whole.yaml", drawings, tmp_path / "run", shared_cache, "--resume")
    assert finished.returncode == 1
    assert "no unfinished run" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.fitting import checkpoint

    write, written = checkpoint.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    finished = fit(recipes / "whole.yaml", drawings, tmp_path / "run", shared_cache, "--checkpoint-every", "0")
    assert finished.returncode == 1
    assert "No space left on device" in finished.stderr
    assert "--resume to continue" in finished.stderr
    assert torch.load(written[0], weights_only=True)["epoch"] == 1
