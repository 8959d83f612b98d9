"""Writes the results of epochs to history.jsonl as they come."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from training.fitting.loop import EpochResult

HISTORY_FILE = "history.jsonl"


@contextmanager
def recorded(folder: Path, earlier: Sequence[EpochResult]) -> Iterator[Callable[[EpochResult], None]]:
    """Write earlier results, then each result as it comes; the file of an earlier attempt is replaced."""
    with (folder / HISTORY_FILE).open("w", encoding="utf-8") as lines:

        def record(result: EpochResult) -> None:
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()

        for result in earlier:
            record(result)
        yield record


def read_history(folder: Path) -> list[EpochResult]:
    """The epochs of a run.

    Raises:
        ValueError: if the file is missing or damaged, with its path.
    """
    path = folder / HISTORY_FILE
    try:
        with path.open(encoding="utf-8") as lines:
            return [EpochResult(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
