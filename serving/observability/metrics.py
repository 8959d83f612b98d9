"""Prometheus metrics of a server, described in docs/observability.md.

Events are counted here as they happen; what can be read at any time (models, queues, statistics) is read when it is
scraped, by `serving.observability.collectors`.
"""

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving.batching.requests import RowSlice
from serving.bundle.model_version import ModelVersion
from serving.context import Call
from serving.statistics.store import Label

SERIES_KEPT_S = 600.0
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LIBRARIES = ("grpcio", "onnxruntime", "numpy")
MODEL = ("model", "version")

Key = tuple[str, str]
"""Name and version, as values of the labels MODEL."""
ShadowEvent = Literal["images", "labels"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series


class VersionSeries(Collector):
    """Removes the series of model versions that are no longer in use; thread-safe.

    Otherwise the metrics would grow for ever if a model is replaced daily. A series stays while its version is served
    or drains, and for `kept_s` after that and after its last count, since labels of old predictions arrive late. That
    is long enough for several scrapes, which then see the last increase. So no counter falls while its version is
    served; a version that returns later begins at 0, as after a restart, which `rate` and `increase` allow for.
    """

    def __init__(self) -> None:
        self.kept_s = SERIES_KEPT_S
        self.families: Sequence[MetricWrapperBase] = ()
        """Metrics with the labels MODEL, and perhaps others."""
        self._seen: dict[Key, float] = {}  # time.monotonic() when it was last served or counted
        self._lock = Lock()
        self.served: Callable[[], Iterable[Key]] = tuple
        """Returns the versions that are served or drain."""

    def use(self, key: Key) -> None:
        """Keep the series of a version, before it is counted."""
        with self._lock:
            self._seen[key] = time.monotonic()
        self._remove()

    def collect(self) -> Iterable[Metric]:
        """Remove series at each scrape; there are no metrics of its own."""
        self._remove()
        return ()

    def _remove(self) -> None:
        served = self.served()
        now = time.monotonic()
        with self._lock:
            self._seen.update(dict.fromkeys(served, now))
            for key in [key for key, seen in self._seen.items() if now - seen > self.kept_s]:
                del self._seen[key]
                for family in self.families:
                    family.remove_by_labels(dict(zip(MODEL, key, strict=True)))


class Metrics:
    """The metrics of one server; thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.versions = VersionSeries()
        """Removes the series of unused versions."""
        self.registry.register(self.versions)  # first, so that what it removes is not reported once more
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = self._counter("requests", "Calls that ended, by method and status code.", "method", "code")
        self._in_flight = Gauge("pawserve_requests_in_flight", "Calls in flight.", ("method",), registry=self.registry)
        self._request_s = self._seconds("request", "From a call's arrival to its last response.", "method")
        # cached, since looking a child up is slow; there are few methods and codes
        self._in_flight_of = cache(self._in_flight.labels)
        self._requests_of = cache(self._requests.labels)
        self._request_s_of = cache(self._request_s.labels)
        self._images = self._counter(
            "images", "Images by model and result: ok, or the reason of the error.", *MODEL, "result"
        )
        self._labels = self._counter(
            "labels_recorded", "Labels recorded, by whether the prediction was correct.", *MODEL, "right"
        )
        self._rows = self._counter("rows", "Rows (views of images) computed.", *MODEL)
        self._batch_rows = Histogram(
            "pawserve_batch_rows", "Rows in each engine call.", MODEL, buckets=BATCH_ROWS, registry=self.registry
        )
        self._queue_s = self._seconds("queue", "An image's time in queues: for a worker, and for an engine.", *MODEL)
        self._prepare_s = self._seconds("prepare", "An image's time in decoding, resizing and cropping.", *MODEL)
        self._engine_s = self._seconds("engine", "Duration of each engine call.", *MODEL)
        chosen = {
            "images": "Images chosen for a shadow version, by result: ok, or why dropped.",
            "labels": "Labels of images chosen for a shadow version, by whether its result was known.",
        }
        self._shadow = {what: self._counter(f"shadow_{what}", text, *MODEL, "result") for what, text in chosen.items()}
        by_version = (self._images, self._labels, self._rows, self._batch_rows, *self._shadow.values())
        self.versions.families = (*by_version, self._queue_s, self._prepare_s, self._engine_s)
        build = {name: version(name) for name in LIBRARIES}
        Info("pawserve_build", "Versions of the server and its libraries.", registry=self.registry).info(
            {"version": version("pawserve"), "python": platform.python_version(), **build}
        )

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """Count a call in flight."""
        self._in_flight_of(call.method).inc()

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """Count a call that ended with the status of this name."""
        self._in_flight_of(call.method).dec()
        self._requests_of(call.method, code).inc()
        self._request_s_of(call.method).observe(seconds)

    def labels_recorded(self, labels: Sequence[Label]) -> None:
        """Count labels that are on the disk."""
        for model, number in {(label.record.model, label.record.version) for label in labels}:
            self.versions.use((model, str(number)))
        for label in labels:
            record = label.record
            correct = "true" if record.predicted == label.actual else "false"
            self._labels.labels(record.model, record.version, correct).inc()

    def watch_shadows(self, waiting: Callable[[], int], kept_bytes: Callable[[], int]) -> None:
        """Report the images that wait for shadow versions, and their bytes."""
        for name, text, read in (
            ("images", "Images that wait for shadow versions.", waiting),
            ("bytes", "Bytes of the images that are kept for shadow versions.", kept_bytes),
        ):
            Gauge(f"pawserve_shadow_waiting_{name}", text, registry=self.registry).set_function(read)

    def count_shadow(self, what: ShadowEvent, version: ModelVersion, result: str) -> None:
        """Count an image of a shadow version, or a label of such an image."""
        key = (version.name, str(version.version))
        self.versions.use(key)
        self._shadow[what].labels(*key, result).inc()

    def of_model(self, model: str, number: int) -> "ModelMetrics":
        """The metrics of one model version."""
        return ModelMetrics(self, model, str(number))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pawserve_{name}_total", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"pawserve_{name}_duration_seconds", text, labels, buckets=SECONDS, registry=self.registry)


class ModelMetrics:
    """The metrics of one model version; their children are looked up once, since that is slow."""

    def __init__(self, metrics: Metrics, model: str, number: str) -> None:
        key = (model, number)
        metrics.versions.use(key)
        self._rows = metrics._rows.labels(*key)
        self._batch_rows = metrics._batch_rows.labels(*key)
        self._queue_s = metrics._queue_s.labels(*key)
        self._prepare_s = metrics._prepare_s.labels(*key)
        self._engine_s = metrics._engine_s.labels(*key)
        self._images = metrics._images
        self._key = key
        self._ok = metrics._images.labels(*key, "ok")

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        """See BatchObserver."""
        rows = 0
        for job, first, last in batch:
            rows += last - first
            if first == 0:  # count an image in several engine calls with the first one
                prepare_s = job.prepare_ended - job.prepare_began
                self._prepare_s.observe(prepare_s)
                self._queue_s.observe(began - job.request.began - prepare_s)
        self._rows.inc(rows)
        self._batch_rows.observe(rows)
        self._engine_s.observe(ended - began)

    def answered(self, results: Sequence[str]) -> None:
        """Count images by their results: "ok", or the reason of the error."""
        for result in results:
            if result == "ok":
                self._ok.inc()
            else:
                self._images.labels(*self._key, result).inc()
