"""The pixels of an image that Pillow has opened, as RGB in the orientation in which it is viewed.

Conversion and rotation are one pass over the image in bands of rows: Pillow's own conversions each create a whole image
of four bytes a pixel, and several would be in memory at once.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

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
    image: Image.Image,
    *,
    png_bits: int | None = None,
    reopen: Callable[[], Image.Image] | None = None,
    band_pixels: int = BAND_PIXELS,
) -> NDArray[np.uint8]:
    """Decode an opened image to upright RGB.

    Args:
        image: as Pillow opened it.
        png_bits: significant bits that a PNG of 16 bits a channel declares; None if it declares none.
        reopen: opens the image once more; needed for PNGs with several channels of fewer significant bits than 16.
        band_pixels: about how many pixels to convert at a time.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        Exception: what Pillow raises, which for damaged files can be of any kind.
    """
    raw_mode = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    image.load()
    width, height = image.size
    rows = max(1, band_pixels // width)
    orientation = orientation_of(image)  # some formats reveal it only after loading
    pixels_HWC, stored_HWC = _empty(height, width, orientation)
    shift = _shift_to_8_bits(image, rows, png_bits) if image.mode.startswith(_SIXTEEN_BIT) else 0
    bands = _bands(image, rows)
    if png_bits and 8 <= png_bits < 16 and reopen and (low_bytes := _low_bytes(image, raw_mode, reopen)):
        bands = _significant_bands(image, low_bytes, rows, png_bits)
    for top, band in zip(range(0, height, rows), bands, strict=True):
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
    values_of_bands = (np.asarray(band) for band in _bands(image, rows))
    return bits - 8 if _use_only(bits, values_of_bands, is_png=png_bits is not None) else 8


def _use_only(bits: int, values_of_bands: Iterable[NDArray[np.uint16]], *, is_png: bool) -> bool:
    """Whether values use the lowest bits of 16 only, as many as a file declares; the rule of `_shift_to_8_bits`."""
    highest = lowest_bits = 0
    for values in values_of_bands:
        highest = max(highest, int(values.max()))
        lowest_bits = max(lowest_bits, int((values & ((1 << (16 - bits)) - 1)).max()))
    return not (highest >> bits or (is_png and lowest_bits <= 1))


def _low_bytes(image: Image.Image, raw_mode: object, reopen: Callable[[], Image.Image]) -> Image.Image | None:
    """The low bytes of a PNG with several channels of 16 bits; None for other images.

    Pillow keeps the first byte of each value, and the second one if it is told that the file is little-endian.
    """
    if raw_mode not in ("RGB;16B", "RGBA;16B", "LA;16B") or "transparency" in image.info:
        return None
    low = reopen()
    assert isinstance(low, PngImageFile)
    grey = raw_mode == "LA;16B"  # which Pillow reads as RGBA, and cannot read as little-endian
    low.tile = [low.tile[0]._replace(args="RGBA" if grey else f"{low.mode};16L")]
    low.load()
    if not grey:
        return low
    _, low_grey, _, low_alpha = low.split()
    return Image.merge("RGBA", (low_grey, low_grey, low_grey, low_alpha))


def _significant_bands(image: Image.Image, low_bytes: Image.Image, rows: int, bits: int) -> Iterator[Image.Image]:
    """The bands of a PNG with several channels of 16 bits, with the highest 8 of the bits that it declares.

    Colours and alpha are judged apart: programs often leave alpha at 65,535.
    """

    def values_of_bands(channels: slice) -> Iterator[NDArray[np.uint16]]:
        for high, low in zip(_bands(image, rows), _bands(low_bytes, rows), strict=True):
            yield np.asarray(high)[..., channels].astype(np.uint16) << 8 | np.asarray(low)[..., channels]

    groups = [slice(3)] if image.mode == "RGB" else [slice(3), slice(3, None)]
    narrowed = [channels for channels in groups if _use_only(bits, values_of_bands(channels), is_png=True)]
    if not narrowed:
        yield from _bands(image, rows)
        return
    values = [values_of_bands(channels) for channels in narrowed]
    for band in _bands(image, rows):
        pixels_HWC = np.array(band)
        for channels, of_band in zip(narrowed, values, strict=True):
            pixels_HWC[..., channels] = next(of_band) >> bits - 8
        yield Image.fromarray(pixels_HWC)


def _to_rgb(image: Image.Image, shift: int) -> Image.Image:
    mode = image.mode
    if mode.startswith(_SIXTEEN_BIT):
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8)).convert("RGB")
    if mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")  # converting RGB to RGB would copy it
