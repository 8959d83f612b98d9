"""The observers of one server, which record calls and models in metrics, traces and the access log.

The modules of metrics and traces are imported only if the settings ask for them, since they load `prometheus_client`
and OpenTelemetry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Protocol

from serving.context import CURRENT_CALL, Call
from serving.engine.base import InferenceError
from serving.image.decode import ImageError
from serving.observability.settings import ObservabilitySettings
from serving.system.logs import FIELDS, REQUEST_ID

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from serving.batching.requests import RowSlice
    from serving.bundle.manifest import Manifest
    from serving.bundle.model_version import ModelVersion
    from serving.models.repository import ModelRepository
    from serving.observability.metrics import Metrics, ShadowEvent
    from serving.observability.tracing import Tracing
    from serving.statistics.store import Label, StatisticsStore

access_logger = logging.getLogger("pawserve.access")


class CallObserver(Protocol):
    """Is notified of every call, in the event loop."""

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """A call was received, with the client's metadata."""

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """The last response was sent, or the client has gone; `code` is the name of the status."""


class AccessLog:
    """Logs one line for each call when it has ended: the method, the status and counts, but none of its contents."""

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """Log nothing yet."""

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """Log the call."""
        counted = {"images": call.images, "rows": call.rows, "labels": call.labels}
        fields = {
            REQUEST_ID: call.request_id,
            "method": call.method,
            "code": code,
            "duration_s": round(seconds, 6),
            **{name: count for name, count in counted.items() if count},
        }
        access_logger.info("%s %s %.1f ms", call.method, code, 1000 * seconds, extra={FIELDS: fields})


class VersionObserver:
    """Passes the work of one model version on to metrics and traces; a `models.observers.ModelObserver`."""

    def __init__(self, manifest: Manifest, metrics: Metrics | None, tracing: Tracing | None) -> None:
        self._resource = manifest.resource
        self._metrics = metrics.of_model(manifest.name, manifest.version) if metrics else None
        self._tracing = tracing

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        """See BatchObserver."""
        if self._metrics:
            self._metrics.computed(batch, began, ended)
        if self._tracing:
            self._tracing.computed(batch, began, ended, self._resource)

    def answered(self, outcomes: Sequence[object]) -> None:
        """See ModelObserver."""
        if self._metrics:
            self._metrics.answered(list(map(_result, outcomes)))


class Observability:
    """The observers of one server: `start`, then `close`. What the settings do not ask for costs nothing.

    Raises:
        ValueError: if the settings ask for traces and their libraries are not installed.
    """

    def __init__(self, settings: ObservabilitySettings) -> None:
        self._settings = settings
        self._metrics: Metrics | None = None
        self._tracing: Tracing | None = None
        self._cleanup = ExitStack()
        self.metrics_url = ""
        """URL of the metrics, once started."""
        if settings.metrics is not None:
            from serving.observability.metrics import Metrics

            self._metrics = Metrics()
        if settings.otlp_endpoint is not None:
            self._tracing = _make_tracing(settings.otlp_endpoint)
        access_log = AccessLog() if settings.access_log else None
        observers: list[CallObserver | None] = [self._metrics, self._tracing, access_log]
        self.call_observers = [observer for observer in observers if observer]
        """Observers of calls."""

    def start(self, repository: ModelRepository, store: StatisticsStore) -> None:
        """Serve the metrics.

        Raises:
            ValueError: if their address is malformed.
            OSError: if the server cannot listen on it.
        """
        if self._tracing:
            self._cleanup.callback(self._tracing.close)
        if self._metrics is None or self._settings.metrics is None:
            return
        from serving.observability.collectors import ModelCollector, StatisticsCollector, open_versions
        from serving.observability.endpoint import MetricsEndpoint

        self._metrics.versions.served = partial(open_versions, repository)
        statistics = StatisticsCollector(store)
        self._cleanup.callback(statistics.close)
        for collector in (ModelCollector(repository), statistics):
            self._metrics.registry.register(collector)
        if self._settings.endpoint:
            endpoint = MetricsEndpoint(self._metrics.registry, self._settings.metrics)
            self._cleanup.callback(endpoint.close)
            self.metrics_url = endpoint.url

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics; the settings must ask for them."""
        assert self._metrics is not None
        return self._metrics.registry

    def close(self) -> None:
        """Stop serving the metrics, and send the remaining traces."""
        self._cleanup.close()

    def make_observer(self, manifest: Manifest) -> VersionObserver:
        """Make the observer of a model version."""
        return VersionObserver(manifest, self._metrics, self._tracing)

    def watch_shadows(self, waiting: Callable[[], int], kept_bytes: Callable[[], int]) -> None:
        """Report how many images wait for shadow versions, and their bytes, when the metrics are read."""
        if self._metrics:
            self._metrics.watch_shadows(waiting, kept_bytes)

    def count_shadow(self, what: ShadowEvent, version: ModelVersion, result: str) -> None:
        """Count an image of a shadow version by its result, or a label of such an image by whether that was known."""
        if self._metrics:
            self._metrics.count_shadow(what, version, result)

    def labels_recorded(self, labels: Sequence[Label]) -> None:
        """Count labels that are on the disk."""
        if call := CURRENT_CALL.get():
            call.labels += len(labels)
        if self._metrics:
            self._metrics.labels_recorded(labels)


def _make_tracing(endpoint: str) -> Tracing:
    try:
        from serving.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ValueError(
            f"traces need the library {error.name}, which is not installed: pip install 'pawserve[otel]'"
        ) from error
    return Tracing(endpoint)


def _result(outcome: object) -> str:
    """The value of the metrics' label `result`."""
    match outcome:
        case ImageError():
            return outcome.reason
        case InferenceError():
            return "ENGINE_FAILED"
        case TimeoutError():
            return "DEADLINE_EXCEEDED"
        case MemoryError():
            return "OUT_OF_MEMORY"
        case Exception():
            return "INTERNAL"
    return "ok"
