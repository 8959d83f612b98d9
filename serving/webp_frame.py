"""A WebP file that Pillow has opened in; its first frame, a band at a time, out.

Pillow would copy the frame into a picture of its own while libwebp's decoder still holds two canvases: sixteen bytes a
pixel together. Here the decoder goes before anything is made of its frame: twelve while it decodes, then four.
"""

from collections.abc import Iterator
from typing import Any

from PIL import Image

BYTES_PER_PIXEL = 4


def first_frame(image: Image.Image, rows: int) -> Iterator[Image.Image]:
    """Decode the first frame; bands of so many rows, RGB or RGBA. The picture cannot be loaded any more.

    Raises:
        EOFError: if the frame is damaged.
    """
    opened: Any = image  # the decoder is Pillow's own affair: a test sees to it that it is where it was
    frame = opened._decoder.get_next()
    del opened._decoder
    if frame is None:
        raise EOFError("the first frame cannot be decoded")
    width, height = image.size
    return _bands(memoryview(frame[0]), image.mode, opened.rawmode, width, height, rows)


def _bands(pixels: memoryview, mode: str, raw_mode: str, width: int, height: int, rows: int) -> Iterator[Image.Image]:
    stride = BYTES_PER_PIXEL * width
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = pixels[top * stride : bottom * stride]
        yield Image.frombytes(mode, (width, bottom - top), band, "raw", raw_mode)
