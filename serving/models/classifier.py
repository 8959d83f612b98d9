"""Pictures in; the probability of each class out. One classifier for each model version; no gRPC here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.batching.batcher import DynamicBatcher
from serving.engine.base import InferenceError
from serving.image.decode import Limits
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.observers import ModelObserver, count_work

ImageData = bytes | NDArray[np.uint8]
"""Encoded, or decoded: uint8 `[H, W, 3]`, RGB and upright."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a picture shows."""

    probabilities_K: NDArray[np.float32]
    views: int
    """How many views they are the mean of."""


@dataclass(slots=True)
class Usage:
    """How much was asked of a version since it was loaded."""

    pictures: int = 0
    """Pictures that were classified."""
    answered: int = 0
    """Requests that were answered."""
    answered_ns: int = 0
    """How long they took together."""
    failed: int = 0
    """Requests that were refused or cancelled, or of which no picture could be classified."""
    failed_ns: int = 0
    last_ms: int = 0
    """When the last of them ended, in Unix milliseconds; 0 if there is none."""
    engine_calls: int = 0


class Classifier:
    """decode -> views -> batcher -> mean over the views.

    Args:
        adaptive_threshold: highest probability of the first view from which adaptive requests look at no more; None
            if none was chosen for this version: they then look at all.
        observer: hears how pictures are answered.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        batcher: DynamicBatcher,
        limits: Limits,
        *,
        adaptive_threshold: float | None = None,
        observer: ModelObserver | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._batcher = batcher
        self._limits = limits
        self._adaptive_threshold = adaptive_threshold
        self._usage = Usage()
        self._observer = observer

    @property
    def usage(self) -> Usage:
        """How much was asked of it."""
        self._usage.engine_calls = self._batcher.engine_calls
        return self._usage

    @property
    def rows_in_flight(self) -> int:
        """Views that were admitted and not answered yet."""
        return self._batcher.rows_in_flight

    @property
    def max_rows(self) -> int:
        """Most views that may be in flight."""
        return self._batcher.max_rows

    async def classify(
        self,
        pictures: Sequence[ImageData],
        views: int = 1,
        timeout_s: float | None = None,
        *,
        adaptive: bool = False,
    ) -> list[Classification | Exception]:
        """Classify pictures.

        Args:
            pictures: at least one.
            views: how many views of each to average over.
            timeout_s: seconds after which nobody wants the answer; None for never.
            adaptive: look at one view, and at the others only of pictures whose answer is uncertain.

        Returns:
            For each picture its probabilities, or what stopped it: ImageError, InferenceError or TimeoutError.

        Raises:
            QueueFull: if too many views are in flight; nothing was decoded.
        """
        begin, classified = time.monotonic_ns(), 0
        try:
            outcomes = await self._classify(pictures, views, timeout_s, adaptive)
            classified = sum(isinstance(outcome, Classification) for outcome in outcomes)
        finally:
            self._count(classified, time.monotonic_ns() - begin)
        count_work(len(outcomes), sum(outcome.views for outcome in outcomes if isinstance(outcome, Classification)))
        if self._observer:
            self._observer.answered(outcomes)
        return outcomes

    async def _classify(
        self, pictures: Sequence[ImageData], views: int, timeout_s: float | None, adaptive: bool
    ) -> list[Classification | Exception]:
        if adaptive and views > 1 and self._adaptive_threshold is not None:
            return await self._classify_adaptively(pictures, views, timeout_s, self._adaptive_threshold)
        # not a method: what waits in the batcher must not keep the classifier of a retired version
        prepares = [partial(_look, self._preprocess, self._limits, picture, views) for picture in pictures]
        return [_mean(outcome) for outcome in await self._batcher.compute(prepares, views, timeout_s)]

    def close(self) -> None:
        """Compute what is in flight, then stop."""
        self._batcher.close()

    def _count(self, classified: int, ns: int) -> None:
        usage = self._usage
        usage.pictures += classified
        usage.last_ms = time.time_ns() // 1_000_000
        if classified:
            usage.answered += 1
            usage.answered_ns += ns
        else:
            usage.failed += 1
            usage.failed_ns += ns

    async def _classify_adaptively(
        self, pictures: Sequence[ImageData], views: int, timeout_s: float | None, threshold: float
    ) -> list[Classification | Exception]:
        begin = time.monotonic()
        looking = [_LookingTwice(self._preprocess, self._limits, picture) for picture in pictures]
        firsts = await self._batcher.compute([each.first for each in looking], 1, timeout_s)
        averaged = [_mean(first) for first in firsts]
        again = [i for i, one in enumerate(averaged) if isinstance(one, Classification) and _uncertain(one, threshold)]
        if again:
            if timeout_s is not None:
                timeout_s -= time.monotonic() - begin
            prepares = [partial(looking[i].others, views) for i in again]
            del looking  # the canvases of all pictures that need no other view
            others = await self._batcher.compute(prepares, views - 1, timeout_s, extra=True)
            for i, other in zip(again, others, strict=True):
                first = firsts[i]
                assert not isinstance(first, Exception)
                averaged[i] = _mean(other if isinstance(other, Exception) else np.concatenate([first, other]))
        return averaged


class _LookingTwice:
    """One picture, decoded once."""

    __slots__ = ("_canvas_SSC", "_limits", "_picture", "_preprocess")

    def __init__(self, preprocess: Preprocess, limits: Limits, picture: ImageData) -> None:
        self._preprocess = preprocess
        self._limits = limits
        self._picture = picture
        self._canvas_SSC: NDArray[np.uint8]

    def first(self) -> NDArray[np.uint8]:
        self._canvas_SSC = _canvas(self._preprocess, self._limits, self._picture)
        return make_views(self._canvas_SSC, self._preprocess.crop)

    def others(self, views: int) -> NDArray[np.uint8]:
        return make_views(self._canvas_SSC, self._preprocess.crop, first=1, count=views - 1)


def _look(preprocess: Preprocess, limits: Limits, picture: ImageData, views: int) -> NDArray[np.uint8]:
    return make_views(_canvas(preprocess, limits, picture), preprocess.crop, count=views)


def _canvas(preprocess: Preprocess, limits: Limits, picture: ImageData) -> NDArray[np.uint8]:
    return (
        preprocess.canvas(picture, limits=limits) if isinstance(picture, bytes) else preprocess.resize_middle(picture)
    )


def _uncertain(one: Classification, threshold: float) -> bool:
    return float(one.probabilities_K.max()) < threshold


def _mean(outcome: NDArray[np.float32] | Exception) -> Classification | Exception:
    if isinstance(outcome, Exception):
        return outcome
    probabilities_K: NDArray[np.float32] = outcome[0] if len(outcome) == 1 else outcome.mean(axis=0)
    # one comparison finds every NaN: a sum that holds one is none
    if not abs(float(np.add.reduce(probabilities_K)) - 1) < 0.01:
        return InferenceError("the model's probabilities do not sum to 1; export it again")
    return Classification(probabilities_K, len(outcome))
