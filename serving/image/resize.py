"""Antialiased resizing of a part of an image, with SIMD instructions and a memory check."""

from typing import Literal

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray

from serving.system.memory import check_memory

Interpolation = Literal["bilinear", "bicubic"]

RESIZER_BYTES = 2**20
"""Memory of the resizer besides pixels: its weights, and the allocator's overhead."""

FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}
"""Convolution kernels; bicubic is Catmull-Rom (a = -0.5), as in Pillow."""

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


class ResizableImage:
    """A copy of an image's pixels, of which parts are resized."""

    def __init__(self, content: bytes, height: int, width: int, interpolation: Interpolation) -> None:
        """Copy the pixels, the bytes of uint8 `[height, width, 3]`."""
        self._height, self._width = height, width
        self._source = ImageData(width, height, PixelType.U8x3, content)
        self._algorithm = ResizeAlg.convolution(FILTERS[interpolation])

    def resize(self, box: Box, height: int, width: int) -> NDArray[np.uint8]:
        """Resize a part to uint8 `[height, width, 3]`. Pixels beyond the part count where the kernel reaches them."""
        left, top = max(box[0], 0.0), max(box[1], 0.0)  # sums of fractions may lie outside by a rounding error
        right, bottom = min(box[0] + box[2], self._width), min(box[1] + box[3], self._height)
        target = ImageData(width, height, PixelType.U8x3)
        part = CropBox(left, top, right - left, bottom - top)
        Resizer().resize(self._source, target, ResizeOptions(resize_alg=self._algorithm, crop_box=part))
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def check_resize_memory(content: int, rows: int, width: int, height: int) -> None:
    """Check the memory for resizing, because the resizer aborts the process where there is too little.

    Args:
        content: bytes of the source, which are copied.
        rows: of the source that it first resizes to the new width.
        width, height: of all that is resized.

    Raises:
        MemoryError: if there is not enough now.
    """
    check_memory(content + 3 * width * (rows + height) + RESIZER_BYTES)
