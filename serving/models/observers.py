"""Protocols of the observers that models call; `observability` implements them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from serving.batching.requests import BatchObserver
from serving.bundle.manifest import Manifest


class ModelObserver(BatchObserver, Protocol):
    """Is notified of the work of one model version. Its methods take microseconds and do not raise."""

    def answered(self, outcomes: Sequence[object]) -> None:
        """A request was answered: for each image an exception, or its classification."""


ObserverFactory = Callable[[Manifest], ModelObserver]
"""Makes the observer of a version that is being loaded."""
