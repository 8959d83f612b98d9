"""Encoded bytes to a canvas of uint8 RGB pixels. Training, export and serving use this one implementation.

The canvas is the image resized so that its short side has `resize` pixels, or only the square in its middle where no
more is needed. All views (views.py) are cut from it: view 0 is the centre, with a margin of `resize` - `crop` pixels.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import DEFAULT_LIMITS, Limits, decode
from serving.image.resize import FILTERS, Interpolation, ResizableImage, check_resize_memory
from serving.image.views import make_views

PIXELS_VERSION = 1
"""Incremented whenever the same bytes would give other pixels; bundles of another version are rejected."""

MAX_LONG = 2.5
"""Longest canvas, as a multiple of its short side; of a longer image, the ends are left out."""
MANY_PIXELS = 2**21
"""Images of more pixels go through Pillow: `ImageData` copies the pixels while it holds the interpreter's lock, for
half a second at 50 megapixels on a virtual machine, in which no other request could be answered."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input; part of every bundle."""

    resize: int = 256
    """Short side of the canvas in pixels."""
    crop: int = 224
    """Side of a view in pixels: the network's input size."""
    interpolation: Interpolation = "bicubic"
    """Convolution kernel of the antialiased resize; bicubic is Catmull-Rom (a = -0.5), as in Pillow."""
    pixels_version: int = PIXELS_VERSION

    def __post_init__(self) -> None:
        if self.interpolation not in FILTERS:
            raise ValueError(f"interpolation is {self.interpolation!r}; it must be one of {sorted(FILTERS)}")
        if not 16 <= self.crop <= self.resize <= 2048:
            raise ValueError(f"crop is {self.crop} and resize is {self.resize}; needed: 16 <= crop <= resize <= 2048")
        if self.pixels_version != PIXELS_VERSION:
            raise ValueError(
                f"made for version {self.pixels_version} of the preprocessing; this is version "
                f"{PIXELS_VERSION}: the pixels would differ. Export again, or install the pawserve that made it"
            )

    def canvas(
        self,
        data: bytes,
        *,
        whole: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        on_decoded: Callable[[NDArray[np.uint8]], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Decode and resize one encoded image.

        Args:
            whole: the whole image, as other views than view 0 need it; otherwise the square in its middle.
            on_decoded: is called with the decoded image before it is resized; it must not change it.

        Returns:
            uint8 `[H, W, 3]` of the upright image; the short side is `resize`, the long side at most 2.5 times that.

        Raises:
            ImageError, MemoryError: as `decode` does.
        """
        with ExitStack() as reservation:  # of the pixel budget, until the image is resized
            return self.resize_canvas(self._decode(data, limits, reservation, on_decoded), whole=whole)

    def _decode(
        self,
        data: bytes,
        limits: Limits,
        reservation: ExitStack,
        on_decoded: Callable[[NDArray[np.uint8]], None] | None,
    ) -> NDArray[np.uint8]:
        pixels_HWC = decode(data, min_side=self.resize, limits=limits, reservation=reservation)
        if on_decoded:
            on_decoded(pixels_HWC)
        return pixels_HWC

    def views(
        self, data: bytes, count: int = 1, *, first: int = 0, limits: Limits = DEFAULT_LIMITS
    ) -> NDArray[np.uint8]:
        """Decode one encoded image and make views `first` to `first + count - 1`.

        Returns:
            uint8 `[count, crop, crop, 3]`.

        Raises:
            ImageError, MemoryError: as `decode` does.
            ValueError: for more views than there are.
        """
        canvas_HWC = self.canvas(data, whole=first + count > 1, limits=limits)
        return make_views(canvas_HWC, self.crop, first=first, count=count)

    def resize_canvas(self, pixels_HWC: NDArray[np.uint8], *, whole: bool = False) -> NDArray[np.uint8]:
        """Resize uint8 `[H, W, 3]` to a canvas, as `canvas` returns it.

        The square in the middle is the same, bit for bit, whether or not there is more beside it. Only what is on the
        canvas is resized, so an image of one pixel by a million costs hardly more than any other.

        Raises:
            MemoryError: if there is not enough memory now.
        """
        height, width = pixels_HWC.shape[:2]
        side, long, lies = min(height, width), max(height, width), width > height
        first, scale = (long - side) / 2, side / self.resize  # of the middle square, in pixels of the image
        beside = int(min(first / scale, (MAX_LONG - 1) / 2 * self.resize)) if whole else 0  # at each end of it
        many = height * width > MANY_PIXELS
        source = Image.fromarray(pixels_HWC) if many else pixels_HWC.tobytes()
        del pixels_HWC  # the caller passes its only reference, so this frees the memory
        # the resizer first resizes one axis of the canvas's part, and of what the kernel reaches beyond it
        length = min(long, round((1 + 2 * beside / self.resize) * side) + side + 8)
        check_resize_memory(source, length, self.resize, self.resize + 2 * beside)
        image = ResizableImage(source, height, width, self.interpolation)

        def strip(start: int, stop: int) -> NDArray[np.uint8]:
            """Part of the canvas along its long side, in pixels counted from the middle square's first."""
            at, length = first + start * scale, (stop - start) * scale
            if lies:
                return image.resize((at, 0, length, side), self.resize, stop - start)
            return image.resize((0, at, side, length), stop - start, self.resize)

        middle_SSC = strip(0, self.resize)
        if not beside:
            return middle_SSC
        parts = [strip(-beside, 0), middle_SSC, strip(self.resize, self.resize + beside)]
        return np.concatenate(parts, axis=1 if lies else 0)
