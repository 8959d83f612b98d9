"""How far a fit has come, as one file: written whole, read without running anything in it."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.system.files import write_atomically
from training.evaluation.metrics import measure
from training.evaluation.temperature import cross_fitted
from training.fitting.loop import EpochResult
from training.fitting.lr_finder import LrCurve
from training.recipes.recipe import differences

CHECKPOINT_FILE = "checkpoint.pt"
FORMAT = 2


class ResumeError(ValueError):
    """A checkpoint that cannot be gone on from; the message says what differs."""


@dataclass(frozen=True)
class StepResult:
    """What the network was like after a step."""

    name: str
    size: int | None
    right: Tensor
    """bool `[N]`: which of the validation images it has right."""
    metrics: dict[str, Any]
    """As `run.json` has them, cross-fitted."""
    seconds: float

    @classmethod
    def of(cls, name: str, size: int | None, logits: Tensor, labels_N: NDArray[np.int64], seconds: float) -> Self:
        """Measure the logits `[N, K]` of the validation images: with many classes they would fill a checkpoint."""
        logits_NK = logits.cpu().numpy()
        metrics = measure(cross_fitted(logits_NK[None], labels_N), labels_N)
        return cls(name, size, torch.from_numpy(logits_NK.argmax(1) == labels_N), metrics.to_json(), seconds)


@dataclass
class FitState:
    """Everything that the rest of a fit depends on."""

    step: int = 0
    """Steps that are done."""
    epoch: int = 0
    """Epochs of the next step that are done."""
    network: dict[str, Tensor] = field(default_factory=dict)
    """The classifier's state dict."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """The state of the trainer, within a step."""
    history: list[EpochResult] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    """Of the steps that are done."""
    snapshots: list[StepResult] = field(default_factory=list)
    """Of the last step's cycles that are done."""
    curves: list[LrCurve] = field(default_factory=list)


class Checkpoints:
    """The checkpoint of one fit: saved now and then, always the newest whole one."""

    def __init__(
        self,
        folder: Path,
        *,
        recipe: dict[str, Any],
        data: str,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep a checkpoint in a folder.

        Args:
            recipe: its fields; `data`: the split's fingerprint. Both must be the same to go on.
            every_s: seconds between saves at the ends of epochs; 0 saves after each.
        """
        self.path = folder / CHECKPOINT_FILE
        self._recipe = recipe
        self._data = data
        self._every_s = every_s
        self._clock = clock
        self._saved = clock()

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._clock() - self._saved >= self._every_s

    def save(self, reached: FitState) -> None:
        """Write a checkpoint; if that fails, the one before is still there.

        Raises:
            OSError: if it cannot be written.
        """
        content = {
            "format": FORMAT,
            "recipe": self._recipe,
            "data": self._data,
            "step": reached.step,
            "epoch": reached.epoch,
            "network": reached.network,
            "trainer": reached.trainer,
            "history": [vars(result) for result in reached.history],
            "results": [vars(result) for result in reached.results],
            "snapshots": [vars(result) for result in reached.snapshots],
            "curves": [vars(curve) for curve in reached.curves],
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.path, buffer.getvalue())
        self._saved = self._clock()

    def load(self, device: torch.device) -> FitState:
        """The newest checkpoint, or the beginning if none was written.

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
                    f"{self.path.parent} was begun with other settings, so going on would mix two runs:\n  "
                    + "\n  ".join(changed)
                    + "\nuse the same again, or remove that folder to start over"
                )
            return FitState(
                step=content["step"],
                epoch=content["epoch"],
                network=content["network"],
                trainer=content["trainer"],
                history=[EpochResult(**fields) for fields in content["history"]],
                results=[StepResult(**fields) for fields in content["results"]],
                snapshots=[StepResult(**fields) for fields in content["snapshots"]],
                curves=[LrCurve(**fields) for fields in content["curves"]],
            )
        except ResumeError:
            raise
        except Exception as error:  # a damaged file may raise anything; nothing in it is run
            why = str(error).partition(". ")[0]  # torch goes on for a paragraph
            raise ResumeError(
                f"{self.path} cannot be read ({type(error).__name__} {why}); remove {self.path.parent} to start over"
            ) from error
