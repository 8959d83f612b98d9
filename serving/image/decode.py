"""Encoded bytes to one upright 8-bit RGB image, or an ImageError with a reason.

- EXIF (or XMP) orientation is applied.
- Grey becomes three equal channels; palettes are looked up; CMYK and YCbCr are converted by Pillow.
- Transparent pixels (an alpha channel or a transparent colour) are composited on white.
- Of 16 bits a channel the high byte is kept; of fewer significant bits, if a PNG (sBIT) or a grey TIFF (BitsPerSample,
  MaxSampleValue) declares them and its values are no larger, the highest 8.
- 32-bit and floating-point pixels have no agreed white: unsupported.
- Of an animation or a multi-page file, the first frame is decoded.

This module changes no setting of Pillow. A process that decodes images of strangers calls `ignore_pillow_warnings`.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Condition

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from serving.image.errors import ImageError as ImageError
from serving.image.errors import Reason as Reason
from serving.image.headers import count_scans, full_size, plain_size, png_significant_bits, tiling
from serving.image.opening import check_parts, declared_size, open_image
from serving.image.orientation import is_supported, orientation_of, turn_upright, upright_rgb
from serving.system.memory import can_allocate, is_out_of_memory

MAX_TILE_PIXELS = 2048 * 2048  # of a TIFF; a tile may be larger than its image, and is decoded as a whole
MAX_JPEG_SCANS = 100  # real progressive files have about ten; each goes over all pixels
MAX_SCANNED_PIXELS = 1_000_000_000  # about two seconds
MAX_RLE = 4_000_000  # pixels and bytes of a compressed BMP: Pillow decodes these in Python, pixel by pixel
DECODER_BYTES_PER_PIXEL = 16  # the most that a decoder needs (lossless WebP) before it fails without a reason


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest encoded image that is accepted; both limits are checked before pixels are decoded."""

    max_bytes: int = 16 * 2**20
    """Size of the encoded image in bytes."""
    max_pixels: int = 50_000_000
    """Width times height, as in the file's header."""
    pixels_at_once: int | None = None
    """Pixels of the images that are decoded at full size at the same time; a larger image is decoded alone. None for
    `max_pixels`."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def budget(self) -> int:
        """Pixels that are decoded at the same time."""
        return self.pixels_at_once or self.max_pixels

    @property
    def small(self) -> int:
        """Pixels of an image that is decoded at once, beside the budget, so that it waits for no large one."""
        return self.budget // 16


DEFAULT_LIMITS = Limits()
OWN_IMAGE_LIMITS = Limits(max_bytes=256 * 2**20, max_pixels=200_000_000, pixels_at_once=50_000_000)
"""For the user's own files, in training and in commands without a server."""


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """The estimated work of decoding an image."""

    seconds: float
    large: bool
    """Whether it takes long, or may wait for other large images."""


PIXEL_S, BYTE_S, MIN_S = 30e-9, 10e-9, 0.5e-3
"""Seconds of decoding a pixel of a PNG, a byte of a JPEG that is decoded at a smaller scale, and any image."""
LARGE_S = 0.1


def estimate_work(data: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> DecodeWork:
    """Estimate the work of decoding an image from its header, within microseconds for real files."""
    width, height = full_size(data)
    pixels = min(width * height, limits.max_pixels)
    seconds = MIN_S + pixels * PIXEL_S + len(data) * BYTE_S
    return DecodeWork(seconds, pixels > limits.small or seconds > LARGE_S)


class PixelBudget:
    """Bounds how many pixels are decoded at full size at the same time. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken = 0

    @contextmanager
    def take(self, pixels: int, limit: int) -> Iterator[None]:
        """Wait until an image fits within the limit, and hold its pixels while the block runs.

        Args:
            pixels: of the image. A single image is admitted whatever its size.
            limit: of all images together.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= limit or pixels <= limit // 16)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_BUDGET = PixelBudget()  # of the process, as memory is


def ignore_pillow_warnings() -> None:
    """Ignore Pillow's warnings in this process: a damaged file either can be decoded, or ImageError says why not."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(
    data: bytes, *, min_side: int = 0, limits: Limits = DEFAULT_LIMITS, reservation: ExitStack | None = None
) -> NDArray[np.uint8]:
    """Decode one image to upright RGB.

    Args:
        data: the encoded image.
        min_side: 0, or how many pixels the short side must keep: a larger JPEG is then decoded at a smaller scale (by
            eighths, in the frequency domain), which is faster and never goes below `min_side`.
        limits: what is accepted.
        reservation: holds the pixel budget of an image that is decoded at full size until the caller closes it; None to
            release it on return.

    Returns:
        uint8 `[H, W, 3]`, contiguous.

    Raises:
        ImageError: with a reason; no other exception, whatever the bytes.
        MemoryError: if the image is within the limits, but there is not enough memory for it now.
    """
    if len(data) > limits.max_bytes:
        raise ImageError(
            Reason.TOO_LARGE, f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed"
        )
    if size := plain_size(data):
        _check_pixels(size, limits)
        pixels = _decode_jpeg(data, size, min_side)
        if pixels is not None:
            return pixels
    check_parts(data)
    if size := declared_size(data):
        _check_pixels(size, limits)
    # Pillow's parsers raise many kinds of exceptions on hostile bytes; they are caught here and nowhere else
    try:
        with ExitStack() as own:
            held = own if reservation is None else reservation
            if size:  # their decoders allocate memory when they are opened
                held.enter_context(_BUDGET.take(size[0] * size[1], limits.budget))
            image = own.enter_context(open_image(data))
            reserved, size = bool(size), image.size
            _check_header(image, data, limits)
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                if not plain_size(data, allow_exif=True):  # the decoder keeps all coefficients, at any scale
                    reserved = True
                    held.enter_context(_BUDGET.take(image.width * image.height, limits.budget))
                pixels = _decode_jpeg(data, image.size, min_side)
                if pixels is not None:
                    return turn_upright(pixels, orientation_of(image))
                if min_side:
                    image.draft(None, (min_side, min_side))
            if not reserved:
                held.enter_context(_BUDGET.take(image.width * image.height, limits.budget))
            return upright_rgb(image, png_bits=png_significant_bits(data), reopen=lambda: open_image(data))
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # a later frame or part that is larger than the header says
        raise ImageError(Reason.TOO_LARGE, f"a part of the image is too large: {error}") from error
    except Exception as error:
        width, height = size or (0, 0)
        if is_out_of_memory(error) or not can_allocate(width * height * DECODER_BYTES_PER_PIXEL):
            raise MemoryError(f"an image of {width} x {height} pixels: {error}") from error
        raise ImageError(
            Reason.TRUNCATED, f"the image ends early or is damaged ({type(error).__name__}: {error})"
        ) from error


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            Reason.TOO_LARGE,
            f"the image is {width} x {height} = {width * height:,} pixels; at most {limits.max_pixels:,} are allowed",
        )


def _check_header(image: Image.Image, data: bytes, limits: Limits) -> None:
    _check_pixels(image.size, limits)
    if image.format in ("JPEG", "MPO"):
        scans = count_scans(data)
        most = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // (image.width * image.height))
        if scans > most:
            message = f"the JPEG has {scans} scans; at this size, at most {most} are allowed"
            raise ImageError(Reason.UNSUPPORTED, message)
    if not is_supported(image.mode):
        message = f"pixels of kind {image.mode!r} are not supported; convert the image to 8-bit RGB or grey"
        raise ImageError(Reason.UNSUPPORTED, message)
    tiles = getattr(image, "tile", ())  # the decoder of each part of the image
    if tiles and tiles[0][0] == "bmp_rle" and max(image.width * image.height, len(data)) > MAX_RLE:
        message = f"a compressed BMP may have {MAX_RLE:,} pixels and bytes; save it uncompressed, or as PNG"
        raise ImageError(Reason.UNSUPPORTED, message)
    if image.format == "TIFF":
        most = max(MAX_TILE_PIXELS, (image.width + 15) * (image.height + 15))  # sides of tiles are multiples of 16
        tile, _ = tiling(data)
        if tile > most:
            raise ImageError(Reason.UNSUPPORTED, f"the TIFF has tiles of {tile:,} pixels; at most {most:,} are allowed")


def _decode_jpeg(data: bytes, size: tuple[int, int], min_side: int) -> NDArray[np.uint8] | None:
    """Decode by the fast path; None if libjpeg reports any problem, which Pillow then judges."""
    if min(size) <= min_side:
        min_side = 0  # simplejpeg would shrink an image that is smaller than this
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=min_side, min_width=min_side)
    except ValueError as error:
        if is_out_of_memory(error):
            raise MemoryError(f"an image of {size[0]} x {size[1]} pixels: {error}") from error
        return None
    return pixels
