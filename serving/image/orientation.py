"""The pixels of an image that Pillow has opened, as RGB in the orientation in which it is viewed.

Conversion and rotation are one pass over the image in bands of rows: Pillow's own conversions each create a whole image
of four bytes a pixel, and several would be in memory at once.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXIF_ORIENTATION = 0x0112
BAND_PIXELS = 2**20
_SIXTEEN_BIT = "I;16"
_OPAQUE = ("RGB", "L", "1", "P", "CMYK", "YCbCr")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def is_supported(mode: str) -> bool:
    """Whether pixels of a Pillow mode can become RGB: those with an agreed black and white."""
    return mode in _OPAQUE + _TRANSPARENT or mode.startswith(_SIXTEEN_BIT)


def upright_rgb(image: Image.Image, band_pixels: int = BAND_PIXELS) -> NDArray[np.uint8]:
    """Decode an opened image to upright RGB.

    Args:
        image: as Pillow opened it.
        band_pixels: about how many pixels to convert at a time.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        Exception: what Pillow raises, which for damaged files can be of any kind.
    """
    image.load()
    width, height = image.size
    rows = max(1, band_pixels // width)
    orientation = orientation_of(image)  # some formats reveal it only after loading
    pixels_HWC, stored_HWC = _empty(height, width, orientation)
    for top, band in zip(range(0, height, rows), _bands(image, rows), strict=True):
        stored_HWC[top : top + rows] = np.asarray(_to_rgb(band))
    return pixels_HWC


def turn_upright(stored_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and mirror the pixels of a file as its EXIF orientation says.

    Args:
        stored_HWC: uint8 `[H, W, 3]`, as they are in the file.
        orientation: 1 to 8; other values count as 1.

    Returns:
        uint8 `[H, W, 3]`, or `[W, H, 3]` after a quarter turn.
    """
    if orientation not in range(2, 9):
        return stored_HWC
    height, width = stored_HWC.shape[:2]
    pixels_HWC, target_HWC = _empty(height, width, orientation)
    target_HWC[:] = stored_HWC
    return pixels_HWC


def orientation_of(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation of an image; 1 if it has none."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # pixels can be intact while EXIF is damaged
        return 1


def _empty(height: int, width: int, orientation: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Allocate upright pixels; also return a view of them with the rows of a file of that size and orientation.

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


def _bands(image: Image.Image, rows: int) -> Iterator[Image.Image]:
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
    return image if mode == "RGB" else image.convert("RGB")  # converting RGB to RGB would copy it
