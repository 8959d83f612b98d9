"""The trackers of a run. A tracker that fails is reported and not called again; the fit goes on without it."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.system.files import write_atomically
from training.console import say
from training.fitting.history import HISTORY_FILE
from training.fitting.loop import EpochResult
from training.tracking.mlflow_runs import MlflowRuns
from training.tracking.tensorboard import TensorBoardFiles
from training.tracking.tracker import NotInstalledError, Status, TrackedRun, Tracker, TrackerName, without_secrets
from training.tracking.wandb_runs import WandbRuns

TRACKERS: Mapping[TrackerName, Callable[[], Tracker]] = {
    "mlflow": MlflowRuns,
    "wandb": WandbRuns,
    "tensorboard": TensorBoardFiles,
}
STATE_FILE = "tracking.json"
"""Which runs of which trackers belong to this run: for `--resume`."""
MAX_REASON = 300
"""Characters of an error that are shown: servers answer with whole pages."""


class Trackers:
    """What is called while a run is trained; calls never raise an Exception.

    Args:
        trackers: by their names; none in processes that do not report.
        folder: of the run that is being built, for the state file.
    """

    def __init__(self, trackers: Mapping[str, Tracker], folder: Path) -> None:
        self._trackers = dict(trackers)
        self._folder = folder

    def start(self, run: TrackedRun) -> None:
        """Open the runs, or continue those of a resumed fit."""
        state = _read_state(self._folder / STATE_FILE)
        for name, tracker in list(self._trackers.items()):
            try:
                if found := tracker.start(run, state.get(name, {})):
                    state[name] = dict(found)
                if where := tracker.describe():
                    say(f"{tracker.title}: {where}")
            except NotInstalledError as error:
                self._drop(name, f"not used: {error}")
            except Exception as error:
                self._give_up(name, error)
        if state:
            with suppress(OSError):  # without it, a resumed fit starts runs of its own
                write_atomically(self._folder / STATE_FILE, json.dumps(state) + "\n")

    def log_epoch(self, result: EpochResult) -> None:
        """Add an epoch, unless a tracker has it: a resumed fit repeats those since its checkpoint."""
        self._each(lambda tracker: tracker.log_epoch(result) if result.epoch > tracker.epochs else None)

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Add final metrics and artifacts."""
        self._each(lambda tracker: tracker.log_results(metrics, files))

    def close(self, status: Status) -> None:
        """End the runs."""
        self._each(lambda tracker: tracker.close(status))
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever goes wrong in an optional output must not end a fit
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        reason = f"{error.strerror or error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        reason = " ".join(without_secrets(reason, os.environ).split())
        reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
        self._drop(name, f"not written from here on ({reason}); {HISTORY_FILE} has the same figures")

    def _drop(self, name: str, why: str) -> None:
        say(f"warning: {self._trackers.pop(name).title}: {why}; the fit goes on")


@contextmanager
def tracked(names: Sequence[TrackerName], run: TrackedRun) -> Iterator[Trackers]:
    """Trackers that are started, and closed with how the block ended.

    Args:
        names: none in processes that do not report.
    """
    trackers = Trackers({name: TRACKERS[name]() for name in names}, run.folder)
    trackers.start(run)
    status: Status = "failed"
    try:
        yield trackers
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        trackers.close(status)


def _read_state(path: Path) -> dict[str, dict[str, str]]:
    """The state of the fit that is resumed; empty if there is none, or a damaged one."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {str(key): str(value) for key, value in facts.items()} for name, facts in state.items()}
    except (OSError, ValueError, AttributeError):
        return {}
