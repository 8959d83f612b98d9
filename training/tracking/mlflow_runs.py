"""Runs in MLflow: in the store of MLFLOW_TRACKING_URI, in the experiment of MLFLOW_EXPERIMENT_NAME or `pawserve`."""

import importlib
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.fitting.loop import EpochResult
from training.tracking.tracker import PROJECT, NotInstalledError, Status, TrackedRun, epoch_metrics, without_secrets

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own defaults wait for minutes for a server that is away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Values of variables that the user has not set."""
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MAX_PARAMS = 100
"""Limit of one request to the server."""
MAX_VALUE_CHARACTERS = 6000
LAST_METRIC = "learning_rate"
"""An epoch that has it has all of its metrics: they are in one request."""
_NOT_IN_NAMES = re.compile(r"[^/\w.\- ]")


class MlflowRuns:
    """A run of MLflow, by its client; the globals of the package `mlflow` are left alone."""

    title = "MLflow"
    epochs = 0

    def start(self, run: TrackedRun, earlier: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        with _quiet():
            try:
                mlflow: Any = importlib.import_module("mlflow")
            except ModuleNotFoundError as error:
                raise NotInstalledError(f"{error.name} is not installed: pip install 'pawserve[mlflow]'") from error
        with _quiet():  # again, as the import sets levels
            self.uri = mlflow.get_tracking_uri()
            self.client = mlflow.MlflowClient()
            self.entities = mlflow.entities
            if not self._continue(earlier):
                self._create(run)
        return {"run_id": self.run_id}

    def _continue(self, earlier: Mapping[str, str]) -> bool:
        """Reopen the earlier run; False if there is none any more."""
        if "run_id" not in earlier:
            return False
        errors: Any = importlib.import_module("mlflow.exceptions")
        try:
            found = self.client.get_run(earlier["run_id"])
        except errors.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        if found.info.lifecycle_stage != "active":
            return False
        self.run_id = found.info.run_id
        self.experiment = self.client.get_experiment(found.info.experiment_id).name
        self.client.update_run(self.run_id, status="RUNNING")
        logged = self.client.get_metric_history(self.run_id, LAST_METRIC)
        self.epochs = max((metric.step for metric in logged), default=0)
        return True

    def _create(self, run: TrackedRun) -> None:
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self.client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self.client.create_experiment(self.experiment)
        tags = {"mlflow.source.name": "pawserve", "mlflow.source.type": "LOCAL"}
        self.run_id = self.client.create_run(number, run_name=run.name, tags=tags).info.run_id
        params = [
            self.entities.Param(_NOT_IN_NAMES.sub("_", name), str(value)[:MAX_VALUE_CHARACTERS])
            for name, value in run.params.items()
        ]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=params[first : first + MAX_PARAMS])

    def describe(self) -> str:
        uri = without_secrets(self.uri, os.environ)
        return f"run {self.run_id} of experiment {self.experiment!r} in {uri}"

    def log_epoch(self, result: EpochResult) -> None:
        self._log(epoch_metrics(result), result.epoch)

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        self._log(metrics, 0)
        with _quiet():
            for file in files:
                self.client.log_artifact(self.run_id, str(file))

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        with _quiet():
            entities = [self.entities.Metric(name, value, now, step) for name, value in metrics.items()]
            self.client.log_batch(self.run_id, metrics=entities)

    def close(self, status: Status) -> None:
        with _quiet():
            self.client.set_terminated(self.run_id, STATUSES[status])


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress MLflow's messages about its database and its retries: what fails is raised."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
