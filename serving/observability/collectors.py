"""What is served and what the statistics say in; the metrics that are read when they are scraped, out."""

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillReading

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.models.repository import ModelRepository, State
from serving.observability.metrics import MODEL, Key
from serving.statistics.store import StatisticsStore, VersionStatistics

MIN_AGE_S = 15.0
"""The statistics are not read more often."""
SHARE = 0.02
"""At most this part of the time is spent on reading them, so that large tables are read less often."""
PATIENCE_S = 1.0
"""How long a scrape waits for the statistics; if they take longer, it tells what was read last."""
MAX_VERSIONS = 200
"""The newest versions of each name that statistics are told of, all names together."""

logger = logging.getLogger(__name__)


def versions_alive(repository: ModelRepository) -> list[Key]:
    """The versions that may be counted in: those served, and those that still answer what they had begun with."""
    alive = (status for status in repository.statuses if status.model or status.state is State.DRAINING)
    return [(status.version.name, str(status.version.version)) for status in alive]


class ModelCollector(Collector):
    """The versions that are served, and their queues."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    def collect(self) -> Iterable[Metric]:
        """Read everything; nothing waits for anything."""
        loads = CounterMetricFamily("pawserve_model_loads", "Versions that were taken into service.", labels=["model"])
        refusals = CounterMetricFamily("pawserve_model_refusals", "Versions that were refused.", labels=["model"])
        loaded, refused = self._repository.loaded.copy(), self._repository.failed.copy()
        for name in sorted(loaded.keys() | refused.keys()):  # a 0 too, so that the first one is seen as an increase
            loads.add_metric([name], loaded[name])
            refusals.add_metric([name], refused[name])
        state = _gauge("model_state", "1 for each known version in its state, such as ready or refused.", "state")
        for status in self._repository.statuses:
            state.add_metric([status.version.name, str(status.version.version), status.state.name.lower()], 1)
        info = _gauge(
            "model_info",
            "1 for each version; its labels say what computes it.",
            "arch",
            "engine",
            "runtime",
            "precision",
        )
        rows = _gauge("rows_in_flight", "Rows from their admission to their answer.")
        most = _gauge("rows_in_flight_limit", "Rows that may be in flight; what comes beyond is refused.")
        validated = _gauge("validation_accuracy_ratio", "Validation photos that were right, when it was exported.")
        lower = _gauge("validation_accuracy_lower_ratio", "Lower end of that accuracy's 95% interval.")
        for model in self._repository.models:
            manifest = model.manifest
            key = [manifest.name, str(manifest.version)]
            info.add_metric([*key, manifest.arch, model.engine, model.runtime, model.precision], 1)
            rows.add_metric(key, model.classifier.rows_in_flight)
            most.add_metric(key, model.classifier.max_rows)
            if accuracy := manifest.metrics.get("accuracy"):
                validated.add_metric(key, accuracy["value"])
                lower.add_metric(key, accuracy["lower"])
        return [loads, refusals, state, info, rows, most, validated, lower]


class StatisticsCollector(Collector):
    """How the versions do by their labels, as the statistics store has it; read at most every 15 s."""

    def __init__(self, store: StatisticsStore) -> None:
        self._store = store
        self._reader = ThreadPoolExecutor(1, "metrics-statistics")
        self._reading: Future[list[VersionStatistics]] | None = None
        self._known: list[VersionStatistics] = []
        self._well = False
        self._due_at = 0.0  # time.monotonic()

    def close(self) -> None:
        """Read no more."""
        self._reader.shutdown()

    def collect(self) -> Iterable[Metric]:
        """Tell what is known, after reading again if that is due."""
        self._refresh()
        up = GaugeMetricFamily("pawserve_statistics_up", "Whether the statistics could be read the last time.")
        up.add_metric([], self._well)
        return [up, *_rates(self._known)]

    def _refresh(self) -> None:
        if self._reading is None and time.monotonic() >= self._due_at:
            self._reading = self._reader.submit(self._read)
        if self._reading is None:
            return
        try:
            self._known = self._reading.result(PATIENCE_S)
            self._well = True
        except StillReading:
            return
        except Exception as error:
            if self._well:
                logger.warning("the metrics cannot tell the accuracy, since the statistics cannot be read: %s", error)
            self._well = False
        self._reading = None

    def _read(self) -> list[VersionStatistics]:
        began = time.monotonic()
        try:
            return self._store.read()
        finally:
            took = time.monotonic() - began
            self._due_at = began + max(MIN_AGE_S, took / SHARE)

    def describe(self) -> Iterable[Metric]:
        """The same metrics without values, so that registering does not read the statistics."""
        return [GaugeMetricFamily("pawserve_statistics_up", ""), *_rates([])]


def _rates(known: list[VersionStatistics]) -> Iterator[Metric]:
    predictions = _gauge("predictions", "Predictions made, by all servers that share the statistics.")
    labels = _gauge("labels", "Labelled predictions, by all servers that share the statistics.")
    accuracy = _gauge("accuracy_ratio", "Labelled predictions that were right, out of all that are labelled.")
    lower = _gauge("accuracy_lower_ratio", "Lower end of the accuracy's 95% interval (Wilson score).")
    upper = _gauge("accuracy_upper_ratio", "Upper end of the accuracy's 95% interval (Wilson score).")
    for statistics in sorted(known, key=lambda each: -each.version)[:MAX_VERSIONS]:
        key = [statistics.model, str(statistics.version)]
        predictions.add_metric(key, statistics.predictions)
        labels.add_metric(key, statistics.confusion.total)
        if rate := statistics.confusion.accuracy():
            accuracy.add_metric(key, rate.value)
            lower.add_metric(key, rate.lower)
            upper.add_metric(key, rate.upper)
    yield from (predictions, labels, accuracy, lower, upper)


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pawserve_{name}", text, labels=[*MODEL, *more])
