"""Classification of images with one model version."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.batching.batcher import DynamicBatcher
from serving.context import INTERNAL_CLIENT, Call, ClientIdentity
from serving.engine.base import InferenceError
from serving.image.decode import DecodeWork, Limits, estimate_work
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.observers import ModelObserver

ImageData = bytes | NDArray[np.uint8]
"""An encoded image, or a decoded one: uint8 `[H, W, 3]`, RGB and upright."""

RESIZE_S = 1e-9
"""Seconds for each value of a decoded image."""

_Compute = Callable[..., Awaitable[list[NDArray[np.float32] | Exception]]]


@dataclass(frozen=True, slots=True)
class Classification:
    """The classes of one image."""

    probabilities_K: NDArray[np.float32]
    views: int
    """Number of views over which the probabilities are averaged."""


@dataclass(slots=True)
class Usage:
    """Work of a version since it was loaded."""

    images: int = 0
    """Images that were classified."""
    answered: int = 0
    """Requests with at least one classified image."""
    answered_ns: int = 0
    """Total time of these requests."""
    failed: int = 0
    """Requests that were rejected or cancelled, or of which no image could be classified."""
    failed_ns: int = 0
    last_ms: int = 0
    """When the last request ended, in Unix milliseconds; 0 if there was none."""
    engine_calls: int = 0


class Classifier:
    """Decodes images, makes their views, computes them in batches and averages over the views."""

    def __init__(
        self,
        preprocess: Preprocess,
        batcher: DynamicBatcher,
        limits: Limits,
        *,
        adaptive_threshold: float | None = None,
        observer: ModelObserver | None = None,
    ) -> None:
        """Classify with a batcher, which `close` closes.

        Args:
            adaptive_threshold: adaptive requests compute one view only if its highest probability is at least this;
                None if the bundle has no threshold: they then compute all views.
            observer: is notified of every request.
        """
        self._preprocess = preprocess
        self._batcher = batcher
        self._limits = limits
        self._adaptive_threshold = adaptive_threshold
        self._usage = Usage()
        self._observer = observer

    @property
    def usage(self) -> Usage:
        """Work since the version was loaded."""
        self._usage.engine_calls = self._batcher.engine_calls
        return self._usage

    @property
    def rows_in_flight(self) -> int:
        """Views that were admitted and not answered yet."""
        return self._batcher.rows_in_flight

    @property
    def worker_failures(self) -> int:
        """Unexpected exceptions in worker threads."""
        return self._batcher.worker_failures

    @property
    def max_rows(self) -> int:
        """Most views in flight."""
        return self._batcher.max_rows

    async def classify(
        self,
        images: Sequence[ImageData],
        views: int = 1,
        timeout_s: float | None = None,
        *,
        adaptive: bool = False,
        client: ClientIdentity = INTERNAL_CLIENT,
        call: Call | None = None,
    ) -> list[Classification | Exception]:
        """Classify images.

        Args:
            images: at least one.
            views: number of views of each to average over.
            timeout_s: seconds until the answer is of no use; None for no limit.
            adaptive: compute one view, and the others only of images whose classification is uncertain.
            client: who pays for the work.
            call: the call that is being answered; the work is added to it.

        Returns:
            For each image its classification or an exception: ImageError, InferenceError, MemoryError or TimeoutError.

        Raises:
            QueueFull: if too many views are in flight; no image was decoded.
        """
        begin, classified = time.monotonic_ns(), 0
        compute = partial(self._batcher.compute, client=client, call=call)
        try:
            if adaptive and views > 1 and self._adaptive_threshold is not None:
                outcomes = await self._classify_adaptively(compute, images, views, timeout_s, self._adaptive_threshold)
            else:
                prepares = [partial(self._views_of, image, views) for image in images]
                works = map(self._work_of, images)
                outcomes = [_mean(outcome) for outcome in await compute(prepares, views, timeout_s, works=works)]
            classifications = [outcome for outcome in outcomes if isinstance(outcome, Classification)]
            classified = len(classifications)
        finally:
            self._count(classified, time.monotonic_ns() - begin)
        if call:
            call.images += len(outcomes)
            call.rows += sum(each.views for each in classifications)
        if self._observer:
            self._observer.answered(outcomes)
        return outcomes

    def close(self) -> None:
        """Compute what is in flight, then stop."""
        self._batcher.close()

    def _count(self, classified: int, ns: int) -> None:
        usage = self._usage
        usage.images += classified
        usage.last_ms = time.time_ns() // 1_000_000
        if classified:
            usage.answered += 1
            usage.answered_ns += ns
        else:
            usage.failed += 1
            usage.failed_ns += ns

    async def _classify_adaptively(
        self, compute: _Compute, images: Sequence[ImageData], views: int, timeout_s: float | None, threshold: float
    ) -> list[Classification | Exception]:
        begin = time.monotonic()
        decoded = [_DecodedImage(partial(self._canvas, image), self._preprocess.crop) for image in images]
        works = map(self._work_of, images)
        firsts = await compute([each.first_view for each in decoded], 1, timeout_s, works=works)
        outcomes = [_mean(first) for first in firsts]
        uncertain = [
            i
            for i, outcome in enumerate(outcomes)
            if isinstance(outcome, Classification) and float(outcome.probabilities_K.max()) < threshold
        ]
        if uncertain:
            if timeout_s is not None:
                timeout_s -= time.monotonic() - begin
            prepares = [partial(decoded[i].other_views, views) for i in uncertain]
            del decoded  # the canvases of all images that need no other view
            others = await compute(prepares, views - 1, timeout_s, extra=True)
            for i, other in zip(uncertain, others, strict=True):
                first = firsts[i]
                assert not isinstance(first, Exception)
                outcomes[i] = _mean(other if isinstance(other, Exception) else np.concatenate([first, other]))
        return outcomes

    def _canvas(self, image: ImageData) -> NDArray[np.uint8]:
        preprocess = self._preprocess
        return (
            preprocess.canvas(image, limits=self._limits)
            if isinstance(image, bytes)
            else preprocess.resize_middle(image)
        )

    def _work_of(self, image: ImageData) -> DecodeWork:
        if isinstance(image, bytes):
            return estimate_work(image, self._limits)
        return DecodeWork(image.size * RESIZE_S, large=False)

    def _views_of(self, image: ImageData, views: int) -> NDArray[np.uint8]:
        return make_views(self._canvas(image), self._preprocess.crop, count=views)


class _DecodedImage:
    """An image that is decoded for its first view, and kept for the others."""

    __slots__ = ("_canvas_SSC", "_crop", "_decode")

    def __init__(self, decode: Callable[[], NDArray[np.uint8]], crop: int) -> None:
        self._decode = decode
        self._crop = crop
        self._canvas_SSC: NDArray[np.uint8]

    def first_view(self) -> NDArray[np.uint8]:
        self._canvas_SSC = self._decode()
        return make_views(self._canvas_SSC, self._crop)

    def other_views(self, views: int) -> NDArray[np.uint8]:
        return make_views(self._canvas_SSC, self._crop, first=1, count=views - 1)


def _mean(outcome: NDArray[np.float32] | Exception) -> Classification | Exception:
    if isinstance(outcome, Exception):
        return outcome
    probabilities_K: NDArray[np.float32] = outcome[0] if len(outcome) == 1 else outcome.mean(axis=0)
    # one comparison finds every NaN: a sum with a NaN is NaN
    if not abs(float(np.add.reduce(probabilities_K)) - 1) < 0.01:
        return InferenceError("the model's probabilities do not sum to 1; export it again")
    return Classification(probabilities_K, len(outcome))
