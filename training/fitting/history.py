"""Writes the results of epochs to history.jsonl and TensorBoard event files as they come."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tensorboardX import SummaryWriter

from training.fitting.loop import EpochResult

HISTORY_FILE = "history.jsonl"
EVENTS_FOLDER = "tensorboard"


@contextmanager
def recorded(folder: Path, earlier: Sequence[EpochResult]) -> Iterator[Callable[[EpochResult], None]]:
    """Write earlier results, then each result as it comes; files of an earlier attempt are replaced."""
    events = folder / EVENTS_FOLDER
    for old in events.glob("events.out.tfevents.*"):
        old.unlink()
    with (folder / HISTORY_FILE).open("w", encoding="utf-8") as lines, SummaryWriter(str(events)) as writer:

        def record(result: EpochResult) -> None:
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()
            for tag, value in (
                ("loss/training", result.train_loss),
                ("loss/validation", result.valid_loss),
                ("accuracy/validation", result.valid_accuracy),
                ("learning_rate", result.lr),
            ):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of numpy's, inside the writer
                    writer.add_scalar(tag, value, result.epoch)
            writer.flush()

        for result in earlier:
            record(result)
        yield record
