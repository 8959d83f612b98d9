"""A WebP file that Pillow has opened in; its first frame, a band at a time, out.

Pillow would copy the frame into a picture of its own while libwebp's decoder still holds two canvases: sixteen bytes a
pixel together. Here the decoder goes before anything is made of its frame: twelve while it decodes, then four.

A picture that Pillow has opened in; its pixels as RGB, the way up that they are looked at, out.

Both in one pass over the picture, a band at a time: the conversions of Pillow, each of which makes a whole picture of
four bytes a pixel, would otherwise be in memory side by side.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
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


EXIF_ORIENTATION = 0x0112
BAND_PIXELS = 2**20
_SIXTEEN_BIT = "I;16"
_OPAQUE = ("RGB", "L", "1", "P", "CMYK", "YCbCr")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def is_read(mode: str) -> bool:
    """Whether pixels of one of Pillow's modes can become RGB: those with an agreed black and white."""
    return mode in _OPAQUE + _TRANSPARENT or mode.startswith(_SIXTEEN_BIT)


def upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Decode it; uint8 `[H, W, 3]`. Raises what Pillow raises, of damaged files anything."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    bands = first_frame(image, rows) if image.format == "WEBP" else _loaded(image, rows)
    orientation = orientation_of(image)  # which of some formats is known once they are loaded
    pixels_HWC, stored_HWC = _empty(height, width, orientation)
    for top, band in zip(range(0, height, rows), bands, strict=True):
        stored_HWC[top : top + rows] = np.asarray(_to_rgb(band))
    return pixels_HWC


def turn_upright(stored_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels as they are in a file, turned as its EXIF orientation says."""
    if orientation not in range(2, 9):
        return stored_HWC
    height, width = stored_HWC.shape[:2]
    pixels_HWC, target_HWC = _empty(height, width, orientation)
    target_HWC[:] = stored_HWC
    return pixels_HWC


def orientation_of(image: Image.Image) -> int:
    """Its EXIF (or XMP) orientation; 1 if it has none."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF is no reason to refuse sound pixels
        return 1


def _empty(height: int, width: int, orientation: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Room for upright pixels, and the same room as rows of a file of that height, width and orientation.

    Orientations are those of CIPA DC-008, tag 274: 1 is upright; unknown values count as 1.
    """
    turned = orientation in (5, 6, 7, 8)
    pixels_HWC = np.empty((width, height, 3) if turned else (height, width, 3), np.uint8)
    stored_HWC = pixels_HWC
    if orientation in (2, 3, 6, 7):
        stored_HWC = stored_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored_HWC = stored_HWC[::-1]
    return pixels_HWC, stored_HWC.transpose(1, 0, 2) if turned else stored_HWC


def _loaded(image: Image.Image, rows: int) -> Iterator[Image.Image]:
    """Decode it; its bands of so many rows."""
    image.load()
    width, height = image.size
    if rows >= height:
        return iter((image,))
    return (image.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith(_SIXTEEN_BIT):
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")  # convert would copy it
