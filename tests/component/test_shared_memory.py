"""Training where /dev/shm is small, as in a container, or cannot be used."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

UNSHARE = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o "$1" tmpfs /dev/shm && shift && exec "$@"'

RECORD = """
import sys
from pathlib import Path
from training.fitting.history import recorded
from training.fitting.loop import EpochResult
from training.hardware import workers_can_start
from training.tracking.tracker import TrackedRun
from training.tracking.trackers import tracked
assert not workers_can_start()
folder = Path(sys.argv[1])
with tracked(["tensorboard"], TrackedRun("run", folder, {})) as trackers, recorded(folder, []) as record:
    result = EpochResult("head", 1, 0.1, 0.5, 0.4, 0.9, 100.0, 1.0)
    trackers.log_epoch(result)
    record(result)
"""
DECODE = """
import sys
from pathlib import Path
import numpy as np
from serving.image.preprocess import Preprocess
from training.data.image_files import read_images
from training.data.sources import ImageSource
from training.hardware import workers_can_start
assert workers_can_start()
images = read_images(Path(sys.argv[1])).train
source = ImageSource(images, Preprocess(crop=224, resize=256), "none", workers=2, images_per_worker=1)
rows = np.arange(20)
for inputs, labels in source.batches([rows] * 4, 0):  # 3 MB each
    print(inputs.shape[0], labels.shape[0])
"""


def with_shared_memory(options: str, code: str, argument: Path) -> subprocess.CompletedProcess[str]:
    """Run code where /dev/shm is a tmpfs mounted with options."""
    command = [*UNSHARE, MOUNT, "sh", options]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let its users mount folders")
    return subprocess.run([*command, sys.executable, "-c", code, argument], cwd=ROOT, capture_output=True, text=True)


def test_without_shared_memory_epochs_are_recorded_but_for_tensorboard(tmp_path: Path) -> None:
    finished = with_shared_memory("ro", RECORD, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "/dev/shm cannot be used" in finished.stderr
    assert "TensorBoard: not written from here on" in finished.stderr
    assert (tmp_path / "history.jsonl").read_text().count("\n") == 1


def test_worker_processes_need_little_shared_memory(drawings: Path) -> None:
    finished = with_shared_memory("size=256k", DECODE, drawings)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "20 20\n" * 4
