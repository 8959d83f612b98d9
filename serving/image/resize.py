"""Antialiased resizing of a part of an image, with SIMD instructions and a memory check."""

from typing import Literal

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image

from serving.system.memory import check_memory

Interpolation = Literal["bilinear", "bicubic"]

RESIZER_BYTES = 2**20
"""Memory of the resizer besides pixels: its weights, and the allocator's overhead."""

FILTERS = {"bilinear": FilterType.bilinear, "bicubic": FilterType.catmull_rom}
"""Convolution kernels; bicubic is Catmull-Rom (a = -0.5), as in Pillow."""

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


class ResizableImage:
    """An image of which parts are resized."""

    def __init__(self, source: bytes | Image.Image, height: int, width: int, interpolation: Interpolation) -> None:
        """Take the pixels.

        Args:
            source: the bytes of uint8 `[height, width, 3]`, which are copied; or an RGB image of Pillow's.
        """
        self._height, self._width = height, width
        self._source = ImageData(width, height, PixelType.U8x3, source) if isinstance(source, bytes) else source
        self._algorithm = ResizeAlg.convolution(FILTERS[interpolation])

    def resize(self, box: Box, height: int, width: int) -> NDArray[np.uint8]:
        """Resize a part to uint8 `[height, width, 3]`. Pixels beyond the part count where the kernel reaches them."""
        left, top = max(box[0], 0.0), max(box[1], 0.0)  # sums of fractions may lie outside by a rounding error
        right, bottom = min(box[0] + box[2], self._width), min(box[1] + box[3], self._height)
        part = CropBox(left, top, right - left, bottom - top)
        options = ResizeOptions(resize_alg=self._algorithm, crop_box=part)
        if isinstance(self._source, Image.Image):
            resized = Image.new("RGB", (width, height))
            Resizer().resize_pil(self._source, resized, options)
            return np.asarray(resized)
        target = ImageData(width, height, PixelType.U8x3)
        Resizer().resize(self._source, target, options)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def check_resize_memory(source: bytes | Image.Image, length: int, short: int, long: int) -> None:
    """Check the memory for resizing, because the resizer aborts the process where there is too little.

    Args:
        length: of the part of the source that it resizes, along its long side, in pixels.
        short, long: sides of all that it makes, in pixels.

    Raises:
        MemoryError: if there is not enough now.
    """
    needed = 3 * (short * length + short * long) + RESIZER_BYTES
    if long > short:  # the parts, and the whole
        needed += 3 * short * long
    # a copy of the bytes; Pillow's image is not copied, but has 4 bytes a pixel
    check_memory(len(source) + needed if isinstance(source, bytes) else needed * 4 // 3)
