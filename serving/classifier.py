"""Encoded pictures in; the probability of each class out. One classifier for each model version; no gRPC here."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.batcher import DynamicBatcher
from serving.decode import Limits
from serving.jobs import EngineError
from serving.observer import ModelObserver, count_work
from serving.preprocess import Preprocess
from serving.views import look


class Classifier:
    """decode -> views -> batcher -> mean over the views."""

    def __init__(
        self, preprocess: Preprocess, batcher: DynamicBatcher, limits: Limits, observer: ModelObserver | None = None
    ) -> None:
        self._preprocess = preprocess
        self._batcher = batcher
        self._limits = limits
        self._observer = observer

    @property
    def rows_in_flight(self) -> int:
        """Views that were admitted and not answered yet."""
        return self._batcher.rows_in_flight

    @property
    def max_rows(self) -> int:
        """Most views that may be in flight."""
        return self._batcher.max_rows

    async def classify(
        self, contents: Sequence[bytes], views: int = 1, timeout_s: float | None = None
    ) -> list[NDArray[np.float32] | Exception]:
        """Classify pictures.

        Args:
            contents: encoded pictures, at least one.
            views: how many views of each to average over.
            timeout_s: seconds after which nobody wants the answer; None for never.

        Returns:
            For each picture its probabilities, float32 `[K]`, or what stopped it: ImageError, EngineError or
            TimeoutError.

        Raises:
            QueueFull: if too many views are in flight; nothing was decoded.
        """
        prepares = [partial(self._look, content, views) for content in contents]
        count_work(len(contents), len(contents) * views)
        outcomes = [_mean(outcome) for outcome in await self._batcher.compute(prepares, views, timeout_s)]
        if self._observer:
            self._observer.answered(outcomes)
        return outcomes

    def close(self) -> None:
        """Compute what is in flight, then stop."""
        self._batcher.close()

    def _look(self, content: bytes, views: int) -> NDArray[np.uint8]:
        return look(self._preprocess.canvas(content, limits=self._limits), self._preprocess.crop, count=views)


def _mean(outcome: NDArray[np.float32] | Exception) -> NDArray[np.float32] | Exception:
    if isinstance(outcome, Exception):
        return outcome
    probabilities_K: NDArray[np.float32] = outcome[0] if len(outcome) == 1 else outcome.mean(axis=0)
    # one comparison finds every NaN: a sum that holds one is none
    if not abs(float(probabilities_K.sum()) - 1) < 0.01:
        return EngineError("the model's probabilities do not sum to 1; export it again")
    return probabilities_K
