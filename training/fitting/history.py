"""Writes the results of epochs to history.jsonl and TensorBoard event files as they come.

The event files are optional: if they cannot be written, a message says why, and the fit goes on.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from tensorboardX import SummaryWriter

from training.console import say
from training.fitting.loop import EpochResult

HISTORY_FILE = "history.jsonl"
EVENTS_FOLDER = "tensorboard"


@contextmanager
def recorded(folder: Path, earlier: Sequence[EpochResult]) -> Iterator[Callable[[EpochResult], None]]:
    """Write earlier results, then each result as it comes; files of an earlier attempt are replaced."""
    events = folder / EVENTS_FOLDER
    with (folder / HISTORY_FILE).open("w", encoding="utf-8") as lines, _event_files(events) as record_event:

        def record(result: EpochResult) -> None:
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()
            record_event(result)

        for result in earlier:
            record(result)
        yield record


@contextmanager
def _event_files(folder: Path) -> Iterator[Callable[[EpochResult], None]]:
    writer: SummaryWriter | None = None

    def give_up(error: Exception) -> None:
        nonlocal writer
        reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        say(f"TensorBoard files are not written ({reason}); {HISTORY_FILE} has the same figures")
        writer = None

    try:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer = SummaryWriter(str(folder))  # its queue needs a /dev/shm
    except Exception as error:  # whatever goes wrong in an optional output must not end a fit
        give_up(error)

    def record(result: EpochResult) -> None:
        if writer is None:
            return
        try:
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
        except Exception as error:
            give_up(error)

    try:
        yield record
    finally:
        if writer is not None:
            with suppress(Exception):
                writer.close()
