"""What models do in; metrics and spans of it out, as far as either is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serving.batching.requests import RowSlice
from serving.bundle.manifest import Manifest
from serving.context import CURRENT_CALL
from serving.engine.base import InferenceError
from serving.image.decode import ImageError

if TYPE_CHECKING:  # what is not wanted is not loaded
    from serving.observability.metrics import Metrics
    from serving.observability.tracing import Tracing


class ModelObserver:
    """Hears of all that one version does. What is said to it never raises, and takes microseconds."""

    def __init__(self, manifest: Manifest, metrics: Metrics | None, tracing: Tracing | None) -> None:
        self._resource = manifest.resource
        self._metrics = metrics.of_model(manifest.name, manifest.version) if metrics else None
        self._tracing = tracing

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        """As BatchObserver says."""
        if self._metrics:
            self._metrics.computed(batch, began, ended)
        if self._tracing:
            self._tracing.computed(batch, began, ended, self._resource)

    def answered(self, outcomes: Sequence[object]) -> None:
        """Pictures have their outcomes."""
        if self._metrics:
            self._metrics.answered(list(map(_result, outcomes)))


ObserverOf = Callable[[Manifest], ModelObserver]
"""Makes the observer of a version that is being loaded."""


def count_work(images: int, rows: int) -> None:
    """Add to what the call that is being answered has asked for."""
    if call := CURRENT_CALL.get():
        call.images += images
        call.rows += rows


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
