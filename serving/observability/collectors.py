"""Metrics that are read when they are scraped: models, queues and statistics."""

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.models.loader import ServedModel
from serving.models.repository import ModelRepository, State
from serving.observability.metrics import MODEL, Key
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import StatisticsStore, VersionStatistics

MIN_AGE_S = 15.0
"""Shortest time between two reads of the statistics."""
MAX_READ_SHARE = 0.02
"""Largest share of the time that is spent on reading them, so that large tables are read less often."""
READ_TIMEOUT_S = 1.0
"""How long a scrape waits for the statistics; after that it reports what was read last."""
MAX_VERSIONS = 200
"""Most versions with statistics, of all names together, those with the highest numbers first."""

logger = logging.getLogger(__name__)


def open_versions(repository: ModelRepository) -> list[Key]:
    """The versions with work: those that are served, and those that finish their last calls."""
    working = (status for status in repository.statuses if status.model or status.state is State.DRAINING)
    return [(status.version.name, str(status.version.version)) for status in working]


class ModelCollector(Collector):
    """Metrics of the served versions and their queues."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    def collect(self) -> Iterable[Metric]:
        """Read everything, without blocking."""
        loads = CounterMetricFamily("pawserve_model_loads", "Versions that were loaded.", labels=["model"])
        failures = CounterMetricFamily("pawserve_model_refusals", "Versions that failed to load.", labels=["model"])
        loaded, failed = self._repository.loaded.copy(), self._repository.failed.copy()
        for name in sorted(loaded.keys() | failed.keys()):  # with zeros, so that the first failure is an increase
            loads.add_metric([name], loaded[name])
            failures.add_metric([name], failed[name])
        state = _gauge("model_state", "1 for each known version in its state, such as ready or draining.", "state")
        for status in self._repository.statuses:
            name = pb.ModelState.Name(status.state.value).removeprefix("MODEL_STATE_").lower()
            state.add_metric([status.version.name, str(status.version.version), name], 1)
        info = _gauge(
            "model_info",
            "1 for each version; its labels describe the engine.",
            "arch",
            "engine",
            "runtime",
            "precision",
        )
        rows = _gauge("rows_in_flight", "Rows that were admitted and are not finished.")
        limit = _gauge("rows_in_flight_limit", "Most rows in flight; requests beyond it are rejected.")
        faults = CounterMetricFamily(
            "pawserve_worker_failures", "Unexpected exceptions in worker threads, which went on.", labels=MODEL
        )
        validated = _gauge("validation_accuracy_ratio", "Accuracy on the validation set when the version was exported.")
        lower = _gauge("validation_accuracy_lower_ratio", "Lower end of that accuracy's 95% interval.")
        for model in self._repository.models:
            manifest = model.manifest
            key = [manifest.name, str(manifest.version)]
            info.add_metric([*key, manifest.arch, model.engine, model.runtime, model.precision], 1)
            rows.add_metric(key, model.classifier.rows_in_flight)
            limit.add_metric(key, model.classifier.batcher.max_rows)
            faults.add_metric(key, model.classifier.batcher.worker_failures)
            if accuracy := manifest.metrics.get("accuracy"):
                validated.add_metric(key, accuracy["value"])
                lower.add_metric(key, accuracy["lower"])
        drift = _drift(self._repository.models)
        return [loads, failures, state, info, rows, limit, faults, validated, lower, *drift]


class StatisticsCollector(Collector):
    """Metrics of predictions and labels, from the statistics store; any thread may scrape them.

    Args:
        store: the statistics.
        min_age_s: shortest time between two reads, in seconds.
        max_read_share: largest share of the time that is spent on reading.
    """

    def __init__(
        self, store: StatisticsStore, *, min_age_s: float = MIN_AGE_S, max_read_share: float = MAX_READ_SHARE
    ) -> None:
        self._store = store
        self._min_age_s = min_age_s
        self._max_read_share = max_read_share
        self._reader = ThreadPoolExecutor(1, "metrics-statistics")
        self._reading: Future[list[VersionStatistics]] | None = None
        self._known: list[VersionStatistics] = []
        self._readable = False
        self._due_at = 0.0  # time.monotonic()
        self._lock = Lock()  # of what is above

    def close(self) -> None:
        """Stop reading."""
        self._reader.shutdown()

    def collect(self) -> Iterable[Metric]:
        """Read again if that is due, and report what was read last."""
        self._refresh()
        up = GaugeMetricFamily("pawserve_statistics_up", "Whether the last read of the statistics succeeded.")
        up.add_metric([], self._readable)
        return [up, *_rates(self._known)]

    def _refresh(self) -> None:
        with self._lock:
            if self._reading is None and time.monotonic() >= self._due_at:
                self._reading = self._reader.submit(self._read)
            reading = self._reading
        if reading is None:
            return
        try:
            error = reading.exception(READ_TIMEOUT_S)
        except TimeoutError:  # the read goes on
            return
        with self._lock:
            if self._reading is not reading:  # another scrape has reported it
                return
            self._reading = None
            if error is None:
                self._known = reading.result()
            elif self._readable:
                logger.warning(
                    "the metrics of accuracy are out of date, since the statistics cannot be read: %s", error
                )
            self._readable = error is None

    def _read(self) -> list[VersionStatistics]:
        began = time.monotonic()
        try:
            return self._store.read()
        finally:
            took = time.monotonic() - began
            self._due_at = began + max(self._min_age_s, took / self._max_read_share)

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, so that registering does not read the statistics."""
        return [GaugeMetricFamily("pawserve_statistics_up", ""), *_rates([])]


def _drift(models: Iterable[ServedModel]) -> Iterator[Metric]:
    """Drift of the last predictions that this process has made, where the bundle has a reference."""
    predictions = _gauge("drift_predictions", "Last predictions that are compared with those on the validation images.")
    index = _gauge("drift_stability_index", "Population stability index of the last predictions.", "distribution")
    p_value = _gauge(
        "drift_p_value",
        "p-value of the test that nothing has changed, for one test at a time chosen beforehand.",
        "distribution",
    )
    alarm = _gauge(
        "drift_alarm", "1 if the last predictions differ from those on the validation images.", "distribution"
    )
    for model in models:
        key, drift = [model.manifest.name, str(model.manifest.version)], model.drift.read()
        if drift.unavailable:
            continue
        predictions.add_metric(key, drift.predictions)
        for each in drift.distributions:
            if each.shift:
                index.add_metric([*key, each.name], each.shift.stability_index)
                p_value.add_metric([*key, each.name], each.shift.p_value)
                alarm.add_metric([*key, each.name], each.shift.alarm)
    yield from (predictions, index, p_value, alarm)


def _rates(known: list[VersionStatistics]) -> Iterator[Metric]:
    predictions = _gauge("predictions", "Predictions of all servers that share the statistics.")
    labels = _gauge("labels", "Labelled predictions of all servers that share the statistics.")
    accuracy = _gauge("accuracy_ratio", "Share of the labelled predictions that were correct.")
    lower = _gauge("accuracy_lower_ratio", "Lower end of the accuracy's 95% interval (Wilson score).")
    upper = _gauge("accuracy_upper_ratio", "Upper end of the accuracy's 95% interval (Wilson score).")
    for statistics in sorted(known, key=lambda each: -each.version.version)[:MAX_VERSIONS]:
        key = [statistics.version.name, str(statistics.version.version)]
        predictions.add_metric(key, statistics.predictions)
        labels.add_metric(key, statistics.confusion.total)
        if rate := statistics.confusion.accuracy():
            accuracy.add_metric(key, rate.value)
            lower.add_metric(key, rate.lower)
            upper.add_metric(key, rate.upper)
    yield from (predictions, labels, accuracy, lower, upper)


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pawserve_{name}", text, labels=[*MODEL, *more])
