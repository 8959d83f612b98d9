"""What an operator wants to know in; everything that watches one server, ready to be told, out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from serving.context import CURRENT_CALL, Call
from serving.engine.base import InferenceError
from serving.image.decode import ImageError
from serving.observability.settings import ObservabilitySettings
from serving.system.logs import FIELDS, REQUEST_ID

if TYPE_CHECKING:  # what is not wanted is not loaded
    from serving.batching.requests import RowSlice
    from serving.bundle.manifest import Manifest
    from serving.models.repository import ModelRepository
    from serving.observability.metrics import Metrics
    from serving.observability.tracing import Tracing
    from serving.statistics.store import Label, StatisticsStore


class CallObserver(Protocol):
    """Is told of every call, in the event loop."""

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """A call was received, with the client's metadata."""

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """The last response was sent, or the client has gone; `code` is the name of the status."""


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


access_logger = logging.getLogger("pawserve.access")


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


class Observability:
    """Everything that watches one server. What is not wanted costs nothing.

    Raises:
        ValueError: if traces are wanted and the libraries for them are missing.
    """

    def __init__(self, wanted: ObservabilitySettings) -> None:
        self._wanted = wanted
        self._metrics: Metrics | None = None
        self._tracing: Tracing | None = None
        self.metrics_url = ""
        """Where the metrics are, once started."""
        if wanted.metrics is not None:
            from serving.observability.metrics import Metrics

            self._metrics = Metrics()
        if wanted.otlp_endpoint is not None:
            self._tracing = _tracing(wanted.otlp_endpoint)
        observers: list[CallObserver | None] = [
            self._metrics,
            self._tracing,
            AccessLog() if wanted.access_log else None,
        ]
        self.call_observers = [observer for observer in observers if observer]
        """Who hears of calls."""

    @contextmanager
    def start(self, repository: ModelRepository, store: StatisticsStore) -> Iterator[None]:
        """Answer scrapes, until the block is left.

        Raises:
            ValueError: if the address of the metrics is none.
            OSError: if it cannot be listened on.
        """
        with ExitStack() as stack:
            if self._tracing:
                stack.callback(self._tracing.close)
            if self._metrics and self._wanted.metrics is not None:
                from serving.observability.collectors import ModelCollector, StatisticsCollector, versions_alive
                from serving.observability.endpoint import MetricsEndpoint

                self._metrics.versions.served = partial(versions_alive, repository)
                statistics = StatisticsCollector(store)
                stack.callback(statistics.close)
                for collector in (ModelCollector(repository), statistics):
                    self._metrics.registry.register(collector)
                endpoint = stack.enter_context(MetricsEndpoint(self._metrics.registry, self._wanted.metrics))
                self.metrics_url = endpoint.url
            yield

    def make_observer(self, manifest: Manifest) -> VersionObserver:
        """Make the observer of a model version."""
        return VersionObserver(manifest, self._metrics, self._tracing)

    def labels_recorded(self, labels: Sequence[Label]) -> None:
        """Labels are on the disk."""
        if call := CURRENT_CALL.get():
            call.labels += len(labels)
        if self._metrics:
            self._metrics.labels_recorded(labels)


def _result(outcome: object) -> str:
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


def _tracing(endpoint: str) -> Tracing:
    try:
        from serving.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ValueError(
            f"traces need the library {error.name}, which is not installed: pip install 'pawserve[otel]'"
        ) from error
    return Tracing(endpoint)
