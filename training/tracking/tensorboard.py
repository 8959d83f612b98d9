"""TensorBoard event files in the run's folder `tensorboard`."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from training.fitting.loop import EpochResult
from training.tracking.tracker import Status, TrackedRun, epoch_metrics

EVENTS_FOLDER = "tensorboard"


class TensorBoardFiles:
    """Event files, written anew by each fit: its earlier epochs come first."""

    title = "TensorBoard"
    epochs = 0

    def start(self, run: TrackedRun, earlier: Mapping[str, str]) -> Mapping[str, str]:
        folder = run.folder / EVENTS_FOLDER
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder))  # its queue needs a /dev/shm
        return {}

    def describe(self) -> str:
        return ""

    def log_epoch(self, result: EpochResult) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of numpy's, inside the writer
            for name, value in epoch_metrics(result).items():
                self.writer.add_scalar(name, value, result.epoch)
        self.writer.flush()

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log nothing: the files are in the run, whose other files have the rest."""

    def close(self, status: Status) -> None:
        self.writer.close()
