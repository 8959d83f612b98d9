"""Runs in Weights & Biases, in the project of WANDB_PROJECT or `pawserve`; with WANDB_MODE=offline in local files."""

import importlib
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.fitting.loop import EpochResult
from training.tracking.tracker import PROJECT, NotInstalledError, Status, TrackedRun, epoch_metrics

DEFAULTS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
"""Values of variables that the user has not set."""
ARTIFACT_NAME_LENGTH = 100


class WandbRuns:
    """A run of W&B. Its own copy of the terminal's output and of the source code is not made."""

    title = "W&B"
    epochs = 0

    def start(self, run: TrackedRun, earlier: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.wandb: Any = importlib.import_module("wandb")
            except ModuleNotFoundError as error:
                raise NotInstalledError(f"{error.name} is not installed: pip install 'pawserve[wandb]'") from error
            self.run = self.wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=run.name,
                id=earlier.get("id") or uuid.uuid4().hex[:8],
                resume="allow",
                config=dict(run.params),
                settings=self.wandb.Settings(console="off", save_code=False, disable_git=True),
            )
        # of a run that the server knows, the step after its last; offline, a resumed fit writes all epochs again, since
        # a killed process loses the last ones
        self.epochs = max(self.run.starting_step - 1, 0)
        return {"id": self.run.id}

    def describe(self) -> str:
        if self.run.offline:
            folder = Path(self.run.dir).parent
            return f"run {self.run.id}, offline; upload it with: wandb sync {folder}"
        return f"run {self.run.id}, {self.run.url}"

    def log_epoch(self, result: EpochResult) -> None:
        self.run.log(epoch_metrics(result), step=result.epoch, commit=True)

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        self.run.summary.update(dict(metrics))
        artifact = self.wandb.Artifact(f"run-{self.run.id}"[:ARTIFACT_NAME_LENGTH], type="model")
        for file in files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def close(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
