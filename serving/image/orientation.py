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
_TWELVE = 12
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # TIFF 6.0
_OPAQUE = ("RGB", "L", "1", "P", "CMYK", "YCbCr")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def is_supported(mode: str) -> bool:
    """Whether pixels of a Pillow mode can become RGB: those with an agreed black and white."""
    return mode in _OPAQUE + _TRANSPARENT or mode.startswith(_SIXTEEN_BIT)


def upright_rgb(
    image: Image.Image, *, png_bits: int | None = None, band_pixels: int = BAND_PIXELS
) -> NDArray[np.uint8]:
    """Decode an opened image to upright RGB.

    Args:
        image: as Pillow opened it.
        png_bits: significant bits that a PNG of 16 bits a channel declares; None if it declares none.
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
    shift = _shift_to_8_bits(image, rows, png_bits) if image.mode.startswith(_SIXTEEN_BIT) else 0
    for top, band in zip(range(0, height, rows), _bands(image, rows), strict=True):
        stored_HWC[top : top + rows] = np.asarray(_to_rgb(band, shift))
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


def _shift_to_8_bits(image: Image.Image, rows: int, png_bits: int | None) -> int:
    """By how many bits to shift the values of a loaded 16-bit image to the right.

    Cameras and scanners store 10, 12 or 14 bits in files of 16. That counts only where the file says so and no value is
    larger. A PNG's values should fill 16 bits whatever it declares (the PNG specification, sBIT), which many writers
    disregard: values that do fill them have lowest bits of 0 or 1 if they are as small as the declared bits allow.
    """
    bits = png_bits or 16
    if tags := getattr(image, "tag_v2", None):
        if tags.get(_BITS_PER_SAMPLE) == (_TWELVE,):  # Pillow leaves them as they are
            return _TWELVE - 8
        # not a number of bits: the largest value that occurs, as some programs write
        bits = {((1 << bits) - 1,): bits for bits in range(8, 16)}.get(tags.get(_MAX_SAMPLE_VALUE), 16)
    if not 8 <= bits < 16:
        return 8
    highest = lowest_bits = 0
    for band in _bands(image, rows):
        values = np.asarray(band)
        highest = max(highest, int(values.max()))
        lowest_bits = max(lowest_bits, int((values & ((1 << (16 - bits)) - 1)).max()))
    fills_16_bits = highest >> bits or (png_bits is not None and lowest_bits <= 1)
    return 8 if fills_16_bits else bits - 8


def _to_rgb(image: Image.Image, shift: int) -> Image.Image:
    mode = image.mode
    if mode.startswith(_SIXTEEN_BIT):
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")  # converting RGB to RGB would copy it
