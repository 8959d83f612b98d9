"""Encoded bytes in; a canvas of uint8 RGB pixels out. The one implementation: training, export and serving.

The canvas is the square in the middle of the picture, resized to `resize` pixels a side. It is all that any view
(views.py) looks at: view 0 is its centre, the margin is what the other views move in.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray

from serving.image.decode import DEFAULT_LIMITS, Limits, decode
from serving.system.memory import reserve

PIXELS_VERSION = 1
"""Raised whenever the same bytes would give other pixels: a bundle made for another version is refused."""

Interpolation = Literal["bilinear", "bicubic"]

RESIZER_BYTES = 2**20
"""What the resizer takes beside pixels: its weights, and what allocators add."""

_FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a picture becomes the network's input; part of every bundle."""

    resize: int = 256
    """Side of the canvas in pixels: what the picture's short side is resized to."""
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
                f"made for version {self.pixels_version} of the preprocessing, and this is version "
                f"{PIXELS_VERSION}: the pixels would differ. Export again, or install the pawserve that made it"
            )

    def canvas(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """Decode and resize one encoded picture.

        Returns:
            uint8 `[resize, resize, 3]`: the middle square of the upright picture.

        Raises:
            ImageError, MemoryError: as `decode` does.
        """
        with ExitStack() as room:  # until it is small
            return self.resize_middle(decode(data, min_side=self.resize, limits=limits, room=room))

    def resize_middle(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The middle square of uint8 `[H, W, 3]`, resized to `[resize, resize, 3]`.

        Only what the square covers is resized, so a picture of one pixel by a million costs no more than any
        other.

        Raises:
            MemoryError: if this process has too little memory for it now.
        """
        height, width = pixels_HWC.shape[:2]
        side = min(height, width)
        content = pixels_HWC.tobytes()
        del pixels_HWC  # nobody else may hold it any more
        # the resizer copies them, makes rows of the new width first, and ends the process if it gets no memory
        rows = min(height, 2 * side + 8)  # the square, and what the kernel reaches beyond it
        reserve(len(content) + 3 * self.resize * (rows + self.resize) + RESIZER_BYTES)
        source = ImageData(width, height, PixelType.U8x3, content)
        target = ImageData(self.resize, self.resize, PixelType.U8x3)
        middle = CropBox((width - side) / 2, (height - side) / 2, side, side)
        algorithm = ResizeAlg.convolution(_FILTERS[self.interpolation])
        Resizer().resize(source, target, ResizeOptions(resize_alg=algorithm, crop_box=middle))
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(self.resize, self.resize, 3)
