"""Classification of images with one model version."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.batching.batcher import DynamicBatcher
from serving.batching.requests import BatchObserver
from serving.bundle.model_version import ModelVersion
from serving.context import INTERNAL_CLIENT, Call, ClientIdentity
from serving.engine.base import InferenceError
from serving.image.averaging import average_views
from serving.image.decode import DecodeWork, Limits, estimate_work
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.image_data import ImageData, copy_view
from serving.models.kept_image import ByteBudget, KeptImage

RESIZE_S = 1e-9
"""Seconds for each value of a decoded image."""

_Compute = Callable[..., Awaitable[list[NDArray[np.float32] | Exception]]]


class ModelObserver(BatchObserver, Protocol):
    """Is notified of the work of one model version. Its methods take microseconds and do not raise."""

    def answered(self, outcomes: Sequence[object]) -> None:
        """A request was answered: for each image an exception, or its classification."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The classes of one image."""

    probabilities_K: NDArray[np.float32]
    views: int
    """Number of views over which the probabilities are averaged."""
    kept: KeptImage | None = field(default=None, repr=False)
    """The image for another version, which the receiver must close."""


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
        self.batcher = batcher
        """Computes the views."""
        self._limits = limits
        self._temperatures = temperatures or {1: 1.0}
        self._adaptive_threshold = adaptive_threshold
        self._usage = Usage()
        self._observer = observer

    @property
    def usage(self) -> Usage:
        """Work since the version was loaded."""
        self._usage.engine_calls = self.batcher.engine_calls
        return self._usage

    @property
    def rows_in_flight(self) -> int:
        """Views that were admitted and not answered yet."""
        return self.batcher.rows_in_flight

    async def classify(
        self,
        images: Sequence[ImageData],
        views: int = 1,
        timeout_s: float | None = None,
        *,
        adaptive: bool = False,
        client: ClientIdentity = INTERNAL_CLIENT,
        call: Call | None = None,
        kept: Sequence[KeptImage] = (),
    ) -> list[Classification | Exception]:
        """Classify images.

        Args:
            images: at least one.
            views: number of views of each to average over.
            timeout_s: seconds until the answer is of no use; None for no limit.
            adaptive: compute one view, and the others only of images whose classification is uncertain.
            client: client that the work is charged to.
            call: the call that is being answered; the work is added to it.
            kept: from `keep`, for each image, or for none.

        Returns:
            For each image its classification or an exception: ImageError, InferenceError, MemoryError or TimeoutError.

        Raises:
            QueueFull: if too many views are in flight; no image was decoded.
        """
        begin, classified = time.monotonic_ns(), 0
        keeps: Sequence[KeptImage | None] = kept or [None] * len(images)
        compute = partial(self.batcher.compute, client=client, call=call)
        try:
            if adaptive and views > 1 and self._adaptive_threshold is not None:
                outcomes = await self._classify_adaptively(
                    compute, images, views, timeout_s, self._adaptive_threshold, keeps
                )
            else:
                prepares = [
                    partial(self._views_of, image, views, each) for image, each in zip(images, keeps, strict=True)
                ]
                works = map(self._work_of, images)
                computed = await compute(prepares, views, timeout_s, works=works)
                outcomes = list(map(self.average, computed, keeps))
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

    def keep(self, image: ImageData, version: ModelVersion, preprocess: Preprocess, budget: ByteBudget) -> KeptImage:
        """Prepare to keep an image for another version while this one classifies it; see `KeptImage`."""
        return KeptImage(image, self._preprocess, version, preprocess, self._limits, budget)

    def average(
        self, probabilities_VK: NDArray[np.float32] | Exception, kept: KeptImage | None = None
    ) -> Classification | Exception:
        """The classification by the probabilities of an image's views; an InferenceError if they are not valid."""
        if isinstance(probabilities_VK, Exception):
            return probabilities_VK
        # one comparison of a row finds every NaN in it: a sum with a NaN is NaN
        if not all(abs(total - 1) < 0.01 for total in np.add.reduce(probabilities_VK, 1).tolist()):
            return InferenceError("the model's probabilities do not sum to 1; export it again")
        return Classification(average_views(probabilities_VK, self._temperatures), len(probabilities_VK), kept)

    def close(self) -> None:
        """Compute what is in flight, then stop."""
        self.batcher.close()

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
        self,
        compute: _Compute,
        images: Sequence[ImageData],
        views: int,
        timeout_s: float | None,
        threshold: float,
        keeps: Sequence[KeptImage | None],
    ) -> list[Classification | Exception]:
        begin = time.monotonic()
        crop = self._preprocess.crop
        decoded = [
            _DecodedImage(partial(self._canvas, image, True, each), crop, each)
            for image, each in zip(images, keeps, strict=True)
        ]
        works = map(self._work_of, images)
        firsts = await compute([each.first_view for each in decoded], 1, timeout_s, works=works)
        outcomes = list(map(self.average, firsts, keeps))
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
                outcomes[i] = self.average(every, keeps[i])
        return outcomes

    def _canvas(self, image: ImageData, whole: bool, kept: KeptImage | None) -> NDArray[np.uint8]:
        preprocess = self._preprocess
        if isinstance(image, np.ndarray):
            if kept:
                kept.keep_decoded(image, copied=False)
            return preprocess.resize_canvas(image, whole=whole)
        data = copy_view(image)
        if kept:
            kept.keep_encoded(data)
        on_decoded = kept.keep_decoded if kept else None
        return preprocess.canvas(data, whole=whole, limits=self._limits, on_decoded=on_decoded)

    def _work_of(self, image: ImageData) -> DecodeWork:
        if isinstance(image, np.ndarray):
            return DecodeWork(image.size * RESIZE_S, large=False)
        return estimate_work(image, self._limits)

    def _views_of(self, image: ImageData, views: int, kept: KeptImage | None) -> NDArray[np.uint8]:
        canvas_HWC = self._canvas(image, views > 1, kept)
        return _kept(make_views(canvas_HWC, self._preprocess.crop, count=views), kept)


class _DecodedImage:
    """An image that is decoded for its first view, and kept for the others."""

    __slots__ = ("_canvas_HWC", "_crop", "_decode", "_kept")

    def __init__(self, decode: Callable[[], NDArray[np.uint8]], crop: int, kept: KeptImage | None) -> None:
        self._decode = decode
        self._crop = crop
        self._kept = kept
        self._canvas_HWC: NDArray[np.uint8]

    def first_view(self) -> NDArray[np.uint8]:
        self._canvas_HWC = self._decode()
        return _kept(make_views(self._canvas_HWC, self._crop), self._kept)

    def other_views(self, views: int) -> NDArray[np.uint8]:
        return _kept(make_views(self._canvas_HWC, self._crop, first=1, count=views - 1), self._kept)


def _kept(views_VHWC: NDArray[np.uint8], kept: KeptImage | None) -> NDArray[np.uint8]:
    """The views, after they were kept for another version."""
    if kept:
        kept.keep_views(views_VHWC)
    return views_VHWC
