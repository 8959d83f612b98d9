"""Images that are kept for another version than the one that is computing them, in bounded memory."""

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from serving.bundle.model_version import ModelVersion
from serving.image.decode import Limits
from serving.image.headers import full_size, plain_size
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.models.image_data import EncodedImage, ImageData

_JPEG = b"\xff\xd8"


class ByteBudget:
    """Bounds the bytes that are kept; for any number of threads.

    Args:
        limit: most bytes at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """Bytes that are kept."""
        return self._taken

    def take(self, size: int) -> bool:
        """Count bytes as kept; False, and nothing is counted, if they would exceed the limit."""
        with self._lock:
            if self._taken + size > self.limit:
                return False
            self._taken += size
            return True

    def release(self, size: int) -> None:
        """Stop counting bytes."""
        with self._lock:
            self._taken -= size


class KeptImage:
    """What another version needs of an image to make the same views as if the image were sent to it.

    If both versions have the same preprocessing, the views themselves are kept. Otherwise the decoded image is, unless
    the other version would decode it at another scale: then the encoded bytes are. A worker thread of its own version
    calls `keep_encoded`, `keep_decoded` and `keep_views`; `close` may come before or after that.

    Args:
        image: the image.
        own: the preprocessing of the version that computes it.
        version: the other version.
        other: its preprocessing.
        limits: of encoded images.
        budget: bounds what is kept. If it does not fit, nothing is, and `complete` is False.
    """

    def __init__(
        self,
        image: ImageData,
        own: Preprocess,
        version: ModelVersion,
        other: Preprocess,
        limits: Limits,
        budget: ByteBudget,
    ) -> None:
        self.version = version
        self.preprocess = other
        self._limits = limits
        self._budget = budget
        self._lock = Lock()  # guards all below
        self._bytes = 0
        self._closed = self._missing = False
        self._views: list[NDArray[np.uint8]] = []
        self._image: bytes | NDArray[np.uint8] | None = None
        self._keeps_views = own == other
        decoded = isinstance(image, np.ndarray) or decodes_alike(image, own.resize, other.resize)
        self._keeps_decoded = not self._keeps_views and decoded
        self._keeps_encoded = not self._keeps_views and not decoded

    def keep_encoded(self, data: bytes) -> None:
        """Keep the encoded bytes if those are what the other version needs."""
        if self._keeps_encoded and self._reserve(len(data)):
            self._image = data

    def keep_decoded(self, pixels_HWC: NDArray[np.uint8], *, copied: bool = True) -> None:
        """Keep the decoded image if that is what the other version needs.

        Args:
            copied: whether the pixels have memory of their own; otherwise they are copied.
        """
        if self._keeps_decoded and self._reserve(pixels_HWC.nbytes):
            self._image = pixels_HWC if copied else pixels_HWC.copy()

    def keep_views(self, views_VHWC: NDArray[np.uint8]) -> None:
        """Keep views if those are what the other version needs; further ones follow the earlier ones."""
        if self._keeps_views and self._reserve(views_VHWC.nbytes):
            self._views = [*self._views, views_VHWC]

    @property
    def complete(self) -> bool:
        """Whether everything that `make_views` needs is kept."""
        return not (self._missing or self._closed) and bool(self._views or self._image is not None)

    def make_views(self, count: int) -> NDArray[np.uint8]:
        """The first `count` views for the other version, uint8 `[count, crop, crop, 3]`.

        Raises:
            ImageError, MemoryError: as `Preprocess.canvas` does, if it has to decode.
            LookupError: if so many views were not kept, or it was closed.
        """
        with self._lock:
            views, image = self._views, self._image
        if image is None:
            if sum(map(len, views)) < count:
                raise LookupError(f"{count} views are needed, and {sum(map(len, views))} were kept")
            return (views[0] if len(views) == 1 else np.concatenate(views))[:count]
        if isinstance(image, bytes):
            canvas_HWC = self.preprocess.canvas(image, whole=count > 1, limits=self._limits)
        else:
            canvas_HWC = self.preprocess.resize_canvas(image, whole=count > 1)
        return make_views(canvas_HWC, self.preprocess.crop, count=count)

    def close(self) -> None:
        """Release the memory; nothing is kept afterwards. A second call does nothing."""
        with self._lock:
            self._closed = True
            size, self._bytes = self._bytes, 0
            self._views, self._image = [], None
        self._budget.release(size)

    def _reserve(self, size: int) -> bool:
        """Count bytes; False if they must not be kept."""
        with self._lock:
            if not self._closed and not self._missing:
                self._missing = not self._budget.take(size)
                self._bytes += 0 if self._missing else size
                return not self._missing
            return False


def decodes_alike(data: EncodedImage, side: int, other_side: int) -> bool:
    """Whether `decode` gives the same pixels of an image for both values of `min_side`.

    Only JPEGs are decoded at a smaller scale, and only if their short side is larger than `min_side`. For some JPEGs it
    is the same scale for both values; those are not told apart.
    """
    if side == other_side or data[: len(_JPEG)] != _JPEG:
        return True
    size = plain_size(data, allow_exif=True) or full_size(data)
    return 0 < min(size) <= min(side, other_side)
