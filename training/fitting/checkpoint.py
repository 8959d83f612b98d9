"""The state of an unfinished fit in one file: written whole, and read without running anything in it."""

import io
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.system.files import write_atomically
from training.console import Stopwatch
from training.evaluation.metrics import measure
from training.evaluation.temperature import cross_fitted
from training.evaluation.trials import Trial
from training.fitting.loop import EpochResult
from training.fitting.lr_finder import LrCurve
from training.recipes.recipe import differences

CHECKPOINT_FILE = "checkpoint.pt"
FORMAT = 4


class ResumeError(ValueError):
    """A checkpoint that a fit cannot continue from; the message says what differs."""


@dataclass(frozen=True)
class StepResult:
    """The validation results after a step."""

    name: str
    size: int | None
    correct: Tensor
    """bool `[N]`: which of the validation images are classified correctly."""
    metrics: dict[str, Any]
    """As in `run.json`, cross-fitted."""
    seconds: float
    part: float = 1.0
    """Of the step's weights; the rest are those of the step before."""

    @classmethod
    def of(cls, name: str, size: int | None, logits: Tensor, labels_N: NDArray[np.int64], seconds: float) -> Self:
        """Measure the logits `[N, K]` of the validation images, which would fill a checkpoint with many classes."""
        logits_NK = logits.cpu().numpy()
        metrics = measure(cross_fitted(logits_NK[None], labels_N), labels_N)
        return cls(name, size, torch.from_numpy(logits_NK.argmax(1) == labels_N), asdict(metrics), seconds)


@dataclass
class FitState:
    """Everything that the rest of a fit depends on."""

    step: int = 0
    """Finished steps."""
    epoch: int = 0
    """Finished epochs of the next step."""
    network: dict[str, Tensor] = field(default_factory=dict)
    """The classifier's state dict."""
    before: dict[str, Tensor] = field(default_factory=dict)
    """The classifier's state dict before the next step, if a part of it is kept."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """The state of the trainer, within a step."""
    history: list[EpochResult] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    """Of the finished steps."""
    snapshots: list[StepResult] = field(default_factory=list)
    """Of the last step's finished cycles."""
    curves: list[LrCurve] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    """Of the steps that held-out training images have been asked about, in order."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    """Of all attempts."""


_LISTS: dict[str, Any] = {"history": EpochResult, "results": StepResult, "snapshots": StepResult, "curves": LrCurve}
"""The lists of a state, and of what."""


class Checkpoints:
    """The checkpoint of one fit: saved at intervals; the file is always the newest whole one."""

    def __init__(self, folder: Path, *, recipe: dict[str, Any], data: str, every_s: float) -> None:
        """Keep a checkpoint in a folder.

        Args:
            recipe: its fields; `data`: the split's fingerprint. Both must be the same to resume.
            every_s: seconds between saves at the ends of epochs; 0 saves after each.
        """
        self.path = folder / CHECKPOINT_FILE
        self._recipe = recipe
        self._data = data
        self._every_s = every_s
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._every_s

    def save(self, state: FitState) -> None:
        """Write a checkpoint; if that fails, the one before is still there.

        Raises:
            OSError: if it cannot be written.
        """
        lists = {name: [vars(each) for each in getattr(state, name)] for name in _LISTS}
        lists["trials"] = [trial.to_json() for trial in state.trials]
        buffer = io.BytesIO()
        head = {"format": FORMAT, "recipe": self._recipe, "data": self._data}
        torch.save(head | vars(state) | lists | {"watch": state.watch.so_far()}, buffer)
        write_atomically(self.path, buffer.getvalue())
        self._saved = time.monotonic()

    def load(self, device: torch.device) -> FitState:
        """The state in the newest checkpoint, or the initial state if there is none.

        Raises:
            ResumeError: if it is of another recipe or other data, or cannot be read.
        """
        if not self.path.exists():
            return FitState()
        try:
            content = torch.load(self.path, weights_only=True, map_location=device)
            if content["format"] != FORMAT:
                raise ResumeError(f"{self.path} has format {content['format']}; this pawserve reads format {FORMAT}")
            changed = differences(self._recipe, content["recipe"])
            if content["data"] != self._data:
                changed.append(f"images: {self._data[:12]}… now, {content['data'][:12]}… then (SHA-256 of all of them)")
            if changed:
                raise ResumeError(
                    f"{self.path.parent} was started with other settings, so resuming would mix two runs:\n  "
                    + "\n  ".join(changed)
                    + "\nuse the same again, or remove that folder to start over"
                )
            lists = {name: [kind(**fields) for fields in content[name]] for name, kind in _LISTS.items()}
            lists["trials"] = [Trial.from_json(fields) for fields in content["trials"]]
            others: dict[str, Any] = {name: content[name] for name in ("step", "epoch", "network", "before", "trainer")}
            return FitState(**others | lists, watch=Stopwatch(content.get("watch")))  # earlier versions wrote none
        except ResumeError:
            raise
        except Exception as error:  # a damaged file may raise anything; nothing in it is run
            why = str(error).partition(". ")[0]  # torch's message is a whole paragraph
            raise ResumeError(
                f"{self.path} cannot be read ({type(error).__name__} {why}); remove {self.path.parent} to start over"
            ) from error
