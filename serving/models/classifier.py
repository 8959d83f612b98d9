"""Classification of images with one model version."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.batching.batcher import DynamicBatcher
from serving.context import INTERNAL_CLIENT, Call, ClientIdentity
from serving.engine.base import InferenceError
from serving.image.averaging import average_views
from serving.image.decode import DecodeWork, Limits, estimate_work
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.observers import ModelObserver

EncodedImage = bytes | memoryview
"""An encoded image; a view of the request that it came in if copying it would take long."""
ImageData = EncodedImage | NDArray[np.uint8]
"""An encoded image, or a decoded one: uint8 `[H, W, 3]`, RGB and upright."""

COPIED_BYTES = 2**20
"""Bytes of a view that are copied at once."""

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
        temperatures: Mapping[int, float] | None = None,
        adaptive_threshold: float | None = None,
        observer: ModelObserver | None = None,
    ) -> None:
        """Classify with a batcher, which `close` closes.

        Args:
            temperatures: fitted, by number of views; that of one view is part of the graph. None for the same for all.
            adaptive_threshold: adaptive requests compute one view only if its highest probability is at least this;
                None if the bundle has no threshold: they then compute all views.
            observer: is notified of every request.
        """
        self._preprocess = preprocess
        self._batcher = batcher
        self._limits = limits
        self._temperatures = temperatures or {1: 1.0}
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
                outcomes = [
                    self._average(outcome) for outcome in await compute(prepares, views, timeout_s, works=works)
                ]
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
        decoded = [_DecodedImage(partial(self._canvas, image, whole=True), self._preprocess.crop) for image in images]
        works = map(self._work_of, images)
        firsts = await compute([each.first_view for each in decoded], 1, timeout_s, works=works)
        outcomes = [self._average(first) for first in firsts]
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
                every = other if isinstance(other, Exception) else np.concatenate([first, other])
                outcomes[i] = self._average(every)
        return outcomes

    def _canvas(self, image: ImageData, whole: bool) -> NDArray[np.uint8]:
        preprocess = self._preprocess
        if isinstance(image, np.ndarray):
            return preprocess.resize_canvas(image, whole=whole)
        return preprocess.canvas(copy_view(image), whole=whole, limits=self._limits)

    def _work_of(self, image: ImageData) -> DecodeWork:
        if isinstance(image, np.ndarray):
            return DecodeWork(image.size * RESIZE_S, large=False)
        return estimate_work(image, self._limits)

    def _views_of(self, image: ImageData, views: int) -> NDArray[np.uint8]:
        return make_views(self._canvas(image, whole=views > 1), self._preprocess.crop, count=views)

    def _average(self, outcome: NDArray[np.float32] | Exception) -> Classification | Exception:
        """The classification by the probabilities of an image's views, `[V, K]`."""
        if isinstance(outcome, Exception):
            return outcome
        # one comparison of a row finds every NaN in it: a sum with a NaN is NaN
        if not all(abs(total - 1) < 0.01 for total in np.add.reduce(outcome, 1).tolist()):
            return InferenceError("the model's probabilities do not sum to 1; export it again")
        return Classification(average_views(outcome, self._temperatures), len(outcome))


def size_of(image: ImageData) -> int:
    """Bytes of an image as it was sent."""
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def copy_view(image: EncodedImage) -> bytes:
    """The bytes of a view, copied in pieces, between which other threads run.

    One copy of many megabytes would hold the interpreter's lock for long. Joining bytes releases it.
    """
    if isinstance(image, bytes):
        return image
    return b"".join([bytes(image[at : at + COPIED_BYTES]) for at in range(0, len(image), COPIED_BYTES)])


class _DecodedImage:
    """An image that is decoded for its first view, and kept for the others."""

    __slots__ = ("_canvas_HWC", "_crop", "_decode")

    def __init__(self, decode: Callable[[], NDArray[np.uint8]], crop: int) -> None:
        self._decode = decode
        self._crop = crop
        self._canvas_HWC: NDArray[np.uint8]

    def first_view(self) -> NDArray[np.uint8]:
        self._canvas_HWC = self._decode()
        return make_views(self._canvas_HWC, self._crop)

    def other_views(self, views: int) -> NDArray[np.uint8]:
        return make_views(self._canvas_HWC, self._crop, first=1, count=views - 1)
