"""Pictures that are decoded at full size at the same time in; no more of them than the memory for the largest takes.

Encoded bytes in; one upright 8-bit RGB picture out, or an ImageError that says why not.

How every kind of picture becomes RGB:

- EXIF (or XMP) orientation is applied, so that the result is upright.
- Grey becomes three equal channels; palettes are looked up; CMYK and YCbCr go through Pillow's conversion.
- Transparent pixels (alpha channel, or a transparent colour) are laid over white, as on a page.
- 16 bits a channel keep their high byte. 32-bit and floating-point pixels have no agreed white: unsupported.
- Of an animation or a multi-page file, the first frame.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serving.image.headers import MAX_PARTS, canvas_size, has_too_many_parts, plain_size, tiling
from serving.image.orientation import is_read, orientation_of, turn_upright, upright_rgb
from serving.system.memory import is_out_of_memory, is_short_of


class PixelRoom:
    """So many pixels may be decoded at once; who comes when there is no room waits. Any thread may."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken = 0

    @contextmanager
    def take(self, pixels: int, most: int) -> Iterator[None]:
        """Hold room for a picture while the block runs.

        Args:
            pixels: of the picture. Alone, any is let in.
            most: of all pictures together.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read, by Pillow's names. JPEG includes MPO, which some phones and cameras write as .jpg."""

Image.init()  # registers the formats now, rather than in the first request, by several threads at once

# Real progressive files have about ten scans. Each goes over all pixels, even if it has but a few bytes.
MAX_TILE_PIXELS = 2048 * 2048  # of a TIFF; a tile may be larger than its picture, and is decoded as a whole
MAX_TIFF_PIECES = 50_000  # each is read in Python; some software makes a strip of every row
MAX_JPEG_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000  # about two seconds
MAX_RLE = 4_000_000  # pixels, and bytes, of a compressed BMP: Pillow decodes these in Python, pixel by pixel
# What decoders take at most before they fail without saying why: lossless WebP, of which other formats need a third.
DECODER_BYTES_PER_PIXEL = 12
_ROOM = PixelRoom()

# What Pillow warns of in a hostile file is no news for the log: either its pixels can be had, or ImageError says why.
warnings.filterwarnings("ignore", module=r"PIL\.")
# The size limit is ours, per call and before any work; Pillow's own, global one would only warn beside it.
Image.MAX_IMAGE_PIXELS = None

_SIGNATURES = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "GIF": (0, b"GIF8"),
    "WEBP": (8, b"WEBP"),
    "TIFF (little-endian)": (0, b"II*\x00"),
    "TIFF (big-endian)": (0, b"MM\x00*"),
}
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_UNREADABLE_SIGNATURES = {
    "HEIC": (4, b"ftyphei"),
    "HEIF": (4, b"ftypmif1"),
    "AVIF": (4, b"ftypavi"),
    "JPEG 2000": (0, b"\x00\x00\x00\x0cjP  "),
    "JPEG XL": (0, b"\x00\x00\x00\x0cJXL "),
    "Photoshop": (0, b"8BPS"),
    "PDF": (0, b"%PDF-"),
    "SVG": (0, b"<svg"),
}


class Reason(StrEnum):
    """Why bytes could not become a picture: stable codes that callers may test for."""

    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    TRUNCATED = "TRUNCATED"
    """Begins as a picture, but ends early or is damaged."""
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"


class ImageError(ValueError):
    """Bytes that are not a picture we can read; `reason` is a stable code, the message is for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one encoded picture may cost; both are checked before its pixels are decoded."""

    max_bytes: int = 16 * 2**20
    """Size of the encoded picture, in bytes."""
    max_pixels: int = 50_000_000
    """Width times height, as the file's header gives them."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


DEFAULT_LIMITS = Limits()


def decode(
    data: bytes, *, min_side: int = 0, limits: Limits = DEFAULT_LIMITS, room: ExitStack | None = None
) -> NDArray[np.uint8]:
    """Decode one picture to upright RGB.

    Args:
        data: the encoded picture.
        min_side: 0, or how many pixels the short side must keep: a larger JPEG is then decoded at a smaller
            scale (by eighths, in the frequency domain), which is faster and never goes below `min_side`.
        limits: what is refused before decoding.
        room: holds the room in memory of a picture that had to be decoded at full size, until it is closed; None to
            let go of it with the return.

    Returns:
        uint8 `[H, W, 3]`, contiguous.

    Raises:
        ImageError: with a reason code; nothing else, whatever the bytes.
        MemoryError: if the picture is within the limits, and this process has too little memory for it now.
    """
    if len(data) > limits.max_bytes:
        raise ImageError(
            Reason.TOO_LARGE, f"the picture has {len(data):,} bytes; at most {limits.max_bytes:,} are taken"
        )
    if size := plain_size(data):
        _check_pixels(size, limits)
        pixels = _decode_jpeg(data, size, min_side)
        if pixels is not None:
            return pixels
    _check_parts(data)
    size = canvas_size(data)
    if size:
        _check_pixels(size, limits)
    # Pillow's parsers raise many kinds of exceptions on hostile bytes: here, and only here, all are caught.
    try:
        with ExitStack() as own:
            room = own if room is None else room
            if size:  # of WebP, whose decoder takes memory as soon as it is opened
                room.enter_context(_ROOM.take(size[0] * size[1], limits.max_pixels))
            image = own.enter_context(_open(data))
            known, size = size, image.size
            _check_header(image, data, limits)
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                if not plain_size(data, turned=True):  # at whatever scale, the decoder keeps all coefficients
                    known = image.size
                    room.enter_context(_ROOM.take(image.width * image.height, limits.max_pixels))
                pixels = _decode_jpeg(data, image.size, min_side)
                if pixels is not None:
                    return turn_upright(pixels, orientation_of(image))
                if min_side:
                    image.draft(None, (min_side, min_side))
            if not known:
                room.enter_context(_ROOM.take(image.width * image.height, limits.max_pixels))
            return upright_rgb(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        width, height = size or (0, 0)
        if is_out_of_memory(error) or is_short_of(width * height * DECODER_BYTES_PER_PIXEL):
            raise MemoryError(f"a picture of {width} x {height} pixels: {error}") from error
        raise ImageError(
            Reason.TRUNCATED, f"the picture ends early or is damaged ({type(error).__name__}: {error})"
        ) from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if not data:
            raise ImageError(Reason.NOT_AN_IMAGE, "the picture has 0 bytes") from error
        if name := _signature_in(data, _UNREADABLE_SIGNATURES):
            raise ImageError(
                Reason.UNSUPPORTED, f"{name} is not read; send JPEG, PNG, WebP, GIF, BMP or TIFF"
            ) from error
        if name := _signature_in(data, _SIGNATURES):
            raise ImageError(Reason.TRUNCATED, f"begins as {name}, but its header ends early or is damaged") from error
        raise ImageError(
            Reason.NOT_AN_IMAGE,
            f"the {len(data):,} bytes are no picture; send JPEG, PNG, WebP, GIF, BMP or TIFF",
        ) from error


def _signature_in(data: bytes, signatures: dict[str, tuple[int, bytes]]) -> str | None:
    return next((name for name, (at, magic) in signatures.items() if data.startswith(magic, at)), None)


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            Reason.TOO_LARGE,
            f"the picture is {width} x {height} = {width * height:,} pixels; at most {limits.max_pixels:,} are taken",
        )


def _check_parts(data: bytes) -> None:
    """Refuse files that would take long to open."""
    if has_too_many_parts(data):
        raise ImageError(Reason.UNSUPPORTED, f"the file has more than {MAX_PARTS:,} segments, chunks or blocks")
    if data[:4] in _TIFF:
        with suppress(struct.error):  # it ends early, as opening it will tell
            if (pieces := tiling(data)[1]) > MAX_TIFF_PIECES:
                message = f"the TIFF has {pieces:,} strips or tiles; at most {MAX_TIFF_PIECES:,} are taken"
                raise ImageError(Reason.UNSUPPORTED, message)


def _check_header(image: Image.Image, data: bytes, limits: Limits) -> None:
    _check_pixels(image.size, limits)
    # 0xFFDA cannot occur inside compressed JPEG data (0xFF is escaped there), so this counts scans from above.
    if image.format in ("JPEG", "MPO"):
        scans = data.count(b"\xff\xda")
        most = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // (image.width * image.height))
        if scans > most:
            raise ImageError(Reason.UNSUPPORTED, f"the JPEG has {scans} scans; at this size, at most {most} are taken")
    if not is_read(image.mode):
        message = f"pixels of kind {image.mode!r} are not read; convert the picture to 8-bit RGB or grey"
        raise ImageError(Reason.UNSUPPORTED, message)
    tiles = getattr(image, "tile", ())  # of files: which decoder each part of the picture needs
    if tiles and tiles[0][0] == "bmp_rle" and max(image.width * image.height, len(data)) > MAX_RLE:
        message = f"a compressed BMP may have {MAX_RLE:,} pixels and bytes; send it uncompressed, or as PNG"
        raise ImageError(Reason.UNSUPPORTED, message)
    if image.format == "TIFF":
        most = max(MAX_TILE_PIXELS, (image.width + 15) * (image.height + 15))  # sides of tiles are multiples of 16
        tile, _ = tiling(data)
        if tile > most:
            raise ImageError(Reason.UNSUPPORTED, f"the TIFF has tiles of {tile:,} pixels; at most {most:,} are taken")


def _decode_jpeg(data: bytes, size: tuple[int, int], min_side: int) -> NDArray[np.uint8] | None:
    """The fast path; None when libjpeg has anything to complain about, which Pillow then judges."""
    if min(size) <= min_side:
        min_side = 0  # simplejpeg would shrink a picture that cannot keep what is asked for
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=min_side, min_width=min_side)
    except ValueError as error:
        if is_out_of_memory(error):
            raise MemoryError(f"a picture of {size[0]} x {size[1]} pixels: {error}") from error
        return None
    return pixels
