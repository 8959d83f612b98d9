"""The interface of trackers, and the parameters and metrics that a run gives them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # it loads torch, and the options of commands need the names only
    from training.evaluation.evaluation import Evaluation
    from training.fitting.loop import EpochResult

TrackerName = Literal["mlflow", "wandb", "tensorboard"]
Status = Literal["finished", "failed", "interrupted"]
PROJECT = "pawserve"
"""The MLflow experiment and the W&B project, unless the tracker's own variables name another."""


class NotInstalledError(RuntimeError):
    """The tracker's package is not installed; the message has the command that installs it."""


@dataclass(frozen=True)
class TrackedRun:
    """A run, as trackers show it."""

    name: str
    folder: Path
    """Folder of files that are written for this run only."""
    params: Mapping[str, str | int | float | bool | None]
    """The recipe's settings by their dotted names, and the data."""


class Tracker(Protocol):
    """An adapter to one tracker. Any call may fail with any exception; then the tracker is not called again."""

    title: str
    """Name of the tracker in messages."""
    epochs: int
    """Number of epochs that the tracker has of the run that is continued, after `start`."""

    def start(self, run: TrackedRun, earlier: Mapping[str, str]) -> Mapping[str, str]:
        """Open a run, or continue one.

        Args:
            earlier: what `start` returned for the run that is resumed; empty for a new one.

        Returns:
            What a later `start` needs to continue this run; empty if it is always written anew.

        Raises:
            NotInstalledError: if the tracker's package is not installed.
        """

    def describe(self) -> str:
        """Location of the run, without secrets; empty if that goes without saying."""

    def log_epoch(self, result: "EpochResult") -> None:
        """Add the metrics of an epoch."""

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Add the final metrics, and files as artifacts."""

    def close(self, status: Status) -> None:
        """End the run."""


def epoch_metrics(result: "EpochResult") -> dict[str, float]:
    """The metrics of an epoch by their names, which are the same in all trackers."""
    return {
        "loss/training": result.train_loss,
        "loss/validation": result.valid_loss,
        "accuracy/validation": result.valid_accuracy,
        "learning_rate": result.lr,
    }


def final_metrics(evaluation: "Evaluation") -> dict[str, float]:
    """The metrics of a finished run by their names: values, 95% intervals and averages over classes."""
    found: dict[str, float] = {}
    intervals = {name: getattr(evaluation.metrics, name) for name in ("accuracy", "nll", "brier", "ece")}
    for name, interval in (intervals | {f"top_{k}": rate for k, rate in evaluation.top_k.items()}).items():
        found |= {f"final/{name}": interval.value}
        found |= {f"final/{name}_lower": interval.lower, f"final/{name}_upper": interval.upper}
    report = evaluation.class_report
    for average, scores in (("macro", report.macro), ("weighted", report.weighted)):
        found |= {f"final/{name}_{average}": getattr(scores, name) for name in ("precision", "recall", "f1")}
    return found | {"final/images": evaluation.metrics.n, "final/temperature": evaluation.temperature}


def flattened(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Nested settings by dotted names; lists become text."""
    flat: dict[str, str | int | float | bool | None] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")  # up to the last @: passwords may contain one
_PARAMETERS = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|token|secret|api_?key|signature|credential)[\w-]*)=[^&\s'\"]+"
)
_SECRET_NAME = re.compile(r"(?i)(password|token|secret|key)$")
_SHORTEST = 6
"""Characters of a variable's value that is searched for in a message: shorter ones are parts of words."""


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A message without passwords of URLs, and without the values of variables such as WANDB_API_KEY.

    Args:
        environment: variables; those that end with PASSWORD, TOKEN, SECRET or KEY are secret.
    """
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return _PARAMETERS.sub(r"\1=***", _CREDENTIALS.sub("***@", text))
