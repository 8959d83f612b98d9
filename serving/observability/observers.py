"""What an operator wants to know in; everything that watches one server, ready to be told, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from serving.context import CURRENT_CALL, Call
from serving.models.observers import ModelObserver
from serving.observability.settings import ObservabilitySettings
from serving.system.logs import AccessLog

if TYPE_CHECKING:  # what is not wanted is not loaded
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

    def observer_of(self, manifest: Manifest) -> ModelObserver:
        """What hears of a version's work."""
        return ModelObserver(manifest, self._metrics, self._tracing)

    def labels_recorded(self, labels: Sequence[Label]) -> None:
        """Labels are on the disk."""
        if call := CURRENT_CALL.get():
            call.labels += len(labels)
        if self._metrics:
            self._metrics.labels_recorded(labels)


def _tracing(endpoint: str) -> Tracing:
    try:
        from serving.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ValueError(
            f"traces need the library {error.name}, which is not installed: pip install 'pawserve[otel]'"
        ) from error
    return Tracing(endpoint)
