"""Encoded bytes to a canvas of uint8 RGB pixels. Training, export and serving use this one implementation.

The canvas is the square in the middle of the image, resized to `resize` pixels a side. All views (views.py) are cut
from it: view 0 is its centre; the margin is for the shifts and rotations of the others.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import DEFAULT_LIMITS, Limits, decode
from serving.system.memory import check_memory

PIXELS_VERSION = 1
"""Incremented whenever the same bytes would give other pixels; bundles of another version are rejected."""

Interpolation = Literal["bilinear", "bicubic"]

RESIZER_BYTES = 2**20
"""Memory of the resizer besides pixels: its weights, and the allocator's overhead."""
MANY_PIXELS = 2**21
"""Images of more pixels go through Pillow: `ImageData` copies the pixels while it holds the interpreter's lock, for
half a second at 50 megapixels on a virtual machine, in which no other request could be answered."""

_FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input; part of every bundle."""

    resize: int = 256
    """Side of the canvas in pixels; the image's short side is resized to it."""
    crop: int = 224
    """Side of a view in pixels: the network's input size."""
    interpolation: Interpolation = "bicubic"
    """Convolution kernel of the antialiased resize; bicubic is Catmull-Rom (a = -0.5), as in Pillow."""
    pixels_version: int = PIXELS_VERSION

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation is {self.interpolation!r}; it must be one of {sorted(_FILTERS)}")
        if not 16 <= self.crop <= self.resize <= 2048:
            raise ValueError(f"crop is {self.crop} and resize is {self.resize}; needed: 16 <= crop <= resize <= 2048")
        if self.pixels_version != PIXELS_VERSION:
            raise ValueError(
                f"made for version {self.pixels_version} of the preprocessing; this is version "
                f"{PIXELS_VERSION}: the pixels would differ. Export again, or install the pawserve that made it"
            )

    def canvas(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """Decode and resize one encoded image.

        Returns:
            uint8 `[resize, resize, 3]`: the middle square of the upright image.

        Raises:
            ImageError, MemoryError: as `decode` does.
        """
        with ExitStack() as reservation:  # of the pixel budget, until the image is resized
            return self.resize_middle(decode(data, min_side=self.resize, limits=limits, reservation=reservation))

    def resize_middle(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the middle square of uint8 `[H, W, 3]` to `[resize, resize, 3]`.

        Only the square is resized, so an image of one pixel by a million costs no more than any other.

        Raises:
            MemoryError: if there is not enough memory now.
        """
        height, width = pixels_HWC.shape[:2]
        side = min(height, width)
        middle = CropBox((width - side) / 2, (height - side) / 2, side, side)
        options = ResizeOptions(resize_alg=ResizeAlg.convolution(_FILTERS[self.interpolation]), crop_box=middle)
        # the resizer first resizes one axis, and aborts the process if memory runs out
        length = min(max(height, width), 2 * side + 8)  # of the square, and the kernel's reach beyond it
        needed = 3 * self.resize * (length + self.resize) + RESIZER_BYTES
        if height * width > MANY_PIXELS:
            image = Image.fromarray(pixels_HWC)
            del pixels_HWC  # the caller passes its only reference, so this frees the memory
            check_memory(needed * 4 // 3)  # Pillow has 4 bytes a pixel
            resized = Image.new("RGB", (self.resize, self.resize))
            Resizer().resize_pil(image, resized, options)
            return np.asarray(resized)
        content = pixels_HWC.tobytes()
        del pixels_HWC
        check_memory(len(content) + needed)  # it copies the pixels
        source = ImageData(width, height, PixelType.U8x3, content)
        target = ImageData(self.resize, self.resize, PixelType.U8x3)
        Resizer().resize(source, target, options)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(self.resize, self.resize, 3)
