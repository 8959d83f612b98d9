"""Metrics by model version in; the same without the series of versions that nobody will count in again.

With a model that is replaced daily, what is told to Prometheus would otherwise grow for ever. A series stays while its
version is served or drains, and for KEPT_S after that and after its last count (labels of old predictions come late):
long enough for several scrapes, and for the last increase to be seen. So no counter falls while its version is served;
one that comes back later begins at 0, as after a restart, which `rate` and `increase` allow for.

What the server does in; Prometheus metrics out. docs/observability.md describes each of them.

Counts are kept as they happen; what can be read at any time (models, queue, statistics) is read when scraped, by
`serving.observability.collectors`.
"""

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving.batching.requests import RowSlice
from serving.context import Call
from serving.statistics.store import Label

KEPT_S = 600.0

Key = tuple[str, str]
"""Name and version, as the labels have them."""


class VersionSeries(Collector):
    """Forgets series of versions, when it is scraped and when a version comes. Any thread may call it."""

    def __init__(self) -> None:
        self.families: Sequence[MetricWrapperBase] = ()
        """Those that have labels model and version, and others perhaps."""
        self._seen: dict[Key, float] = {}  # time.monotonic() when it was last served or counted in
        self._lock = Lock()
        self.served: Callable[[], Iterable[Key]] = tuple
        """Says which versions are served, or still draining."""

    def use(self, key: Key) -> None:
        """Note that a version will be counted in: its series stay."""
        with self._lock:
            self._seen[key] = time.monotonic()
        self._forget()

    def collect(self) -> Iterable[Metric]:
        """Nothing of its own."""
        self._forget()
        return ()

    def _forget(self) -> None:
        served = self.served()
        now = time.monotonic()
        with self._lock:
            self._seen.update(dict.fromkeys(served, now))
            for key in [key for key, seen in self._seen.items() if now - seen > KEPT_S]:
                del self._seen[key]
                for family in self.families:
                    family.remove_by_labels(dict(zip(("model", "version"), key, strict=True)))


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LIBRARIES = ("grpcio", "onnxruntime", "numpy")
MODEL = ("model", "version")

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series, and nobody reads them


class Metrics:
    """One server's metrics. Everything may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.versions = VersionSeries()
        """Which of the series by version are kept."""
        self.registry.register(self.versions)  # first, so that what it forgets is not told once more
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = self._counter("requests", "Calls that ended, by method and status code.", "method", "code")
        self._in_flight = Gauge(
            "pawserve_requests_in_flight", "Calls that are being answered.", ("method",), registry=self.registry
        )
        self._request_s = self._seconds("request", "From a call's arrival to its last answer.", "method")
        # children are looked up once, since that is slow; methods and codes are few
        self._in_flight_of = cache(self._in_flight.labels)
        self._requests_of = cache(self._requests.labels)
        self._request_s_of = cache(self._request_s.labels)
        self._images = self._counter(
            "images", "Pictures answered, by model and result: ok, or the error's reason.", *MODEL, "result"
        )
        self._labels = self._counter(
            "labels_recorded",
            "Labels acknowledged, by whether the prediction was right.",
            *MODEL,
            "right",
        )
        self._rows = self._counter("rows", "Rows (views of pictures) computed.", *MODEL)
        self._batch_rows = Histogram(
            "pawserve_batch_rows", "Rows in each engine call.", MODEL, buckets=BATCH_ROWS, registry=self.registry
        )
        self._queue_s = self._seconds("queue", "A picture's time in queues: for a worker, and for an engine.", *MODEL)
        self._prepare_s = self._seconds("prepare", "A picture's time in decoding, resizing and cutting.", *MODEL)
        self._engine_s = self._seconds("engine", "Duration of each engine call.", *MODEL)
        self.versions.families = [
            self._images,
            self._labels,
            self._rows,
            self._batch_rows,
            self._queue_s,
            self._prepare_s,
            self._engine_s,
        ]
        build = {name: version(name) for name in LIBRARIES}
        Info("pawserve_build", "Versions of the server and what it runs on.", registry=self.registry).info(
            {"version": version("pawserve"), "python": platform.python_version(), **build}
        )

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """A call came."""
        self._in_flight_of(call.method).inc()

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """A call has ended with the status of this name."""
        self._in_flight_of(call.method).dec()
        self._requests_of(call.method, code).inc()
        self._request_s_of(call.method).observe(seconds)

    def labels_recorded(self, labels: Sequence[Label]) -> None:
        """Labels are on the disk."""
        for model, number in {(label.record.model, label.record.version) for label in labels}:
            self.versions.use((model, str(number)))
        for label in labels:
            record = label.record
            right = "true" if record.predicted == label.actual else "false"
            self._labels.labels(record.model, record.version, right).inc()

    def of_model(self, model: str, number: int) -> "ModelMetrics":
        """Those of one version."""
        return ModelMetrics(self, model, str(number))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pawserve_{name}_total", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"pawserve_{name}_duration_seconds", text, labels, buckets=SECONDS, registry=self.registry)


class ModelMetrics:
    """What the batches of one version are counted in; the children are looked up once, since that is slow."""

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
        """As BatchObserver says."""
        rows = 0
        for job, first, last in batch:
            rows += last - first
            if first == 0:  # a picture that several engine calls share is counted with the first of them
                prepare_s = job.prepare_ended - job.prepare_began
                self._prepare_s.observe(prepare_s)
                self._queue_s.observe(began - job.request.began - prepare_s)
        self._rows.inc(rows)
        self._batch_rows.observe(rows)
        self._engine_s.observe(ended - began)

    def answered(self, results: Sequence[str]) -> None:
        """Pictures were answered: "ok", or the error's reason."""
        for result in results:
            if result == "ok":
                self._ok.inc()
            else:
                self._images.labels(*self._key, result).inc()
