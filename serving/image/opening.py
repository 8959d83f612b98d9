"""Opens encoded images: chooses the decoder, and rejects files that would take long to open."""

import io
import struct
from contextlib import suppress

from PIL import Image, features

from serving.image.errors import ImageError, Reason
from serving.image.headers import MAX_PARTS, TIFF_SIGNATURES, canvas_size, has_too_many_parts, tiling
from serving.image.heif import heif_size
from serving.image.kinds import explain, heif_format, supported_format, unsupported_format

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The supported formats by Pillow's names, beside AVIF and HEIC. JPEG includes MPO, which some phones and cameras write
as .jpg."""

Image.init()  # registers the formats now: the first requests would do it in several threads at once

MAX_TIFF_PIECES = 50_000  # each is read in Python; some software makes a strip of every row
_SUPPORTED = "supported are JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC"
_SIGNATURE_BYTES = 16


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a file whose decoder allocates memory when it is opened: WebP, AVIF and HEIC.

    Returns:
        None for other formats.

    Raises:
        ImageError: if the header is damaged, or the file has more boxes than real files have.
    """
    kind = heif_format(data)
    if not kind:
        return canvas_size(data)
    try:
        size = heif_size(data, av1=kind == "AVIF")
    except ValueError as error:
        raise ImageError(Reason.UNSUPPORTED, str(error)) from error
    if not all(size):
        raise ImageError(Reason.TRUNCATED, f"begins as {kind}, but its header ends early or is damaged")
    return size


def check_parts(data: bytes) -> None:
    """Reject files that would take long to open."""
    if has_too_many_parts(data):
        raise ImageError(Reason.UNSUPPORTED, f"the file has more than {MAX_PARTS:,} segments, chunks or blocks")
    if data[:4] in TIFF_SIGNATURES:
        with suppress(struct.error):  # it ends early, which opening it reports
            if (pieces := tiling(data)[1]) > MAX_TIFF_PIECES:
                message = f"the TIFF has {pieces:,} strips or tiles; at most {MAX_TIFF_PIECES:,} are allowed"
                raise ImageError(Reason.UNSUPPORTED, message)


def open_image(data: bytes) -> Image.Image:
    """Open an image as `Image.open` does, but without its process-wide size limit: `limits` are checked instead.

    Raises:
        ImageError: if it is none, is in an unsupported format, or its header is damaged.
    """
    if kind := heif_format(data):
        return _open_heif(data, kind)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(data[:_SIGNATURE_BYTES]) is True:
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format, or a damaged header
                return factory(io.BytesIO(data), "")
    if not data:
        raise ImageError(Reason.NOT_AN_IMAGE, "the image has 0 bytes")
    if name := unsupported_format(data):
        raise ImageError(Reason.UNSUPPORTED, f"{name} is not supported; {_SUPPORTED}")
    if name := supported_format(data):
        raise ImageError(Reason.TRUNCATED, f"begins as {name}, but its header ends early or is damaged")
    looks = f"they look like {explained}" if (explained := explain(data)) else _SUPPORTED
    raise ImageError(Reason.NOT_AN_IMAGE, f"the {len(data):,} bytes are not an image; {looks}")


def _open_heif(data: bytes, kind: str) -> Image.Image:
    """Open an AVIF by Pillow, and a HEIC by pillow-heif, which is an extra: its libraries are large and of the GPL."""
    stream = io.BytesIO(data)
    if kind == "AVIF":
        if "AVIF" not in Image.OPEN or not features.check("avif"):
            raise ImageError(Reason.UNSUPPORTED, "this build of Pillow has no AVIF decoder; install a wheel from PyPI")
        return Image.OPEN["AVIF"][0](stream, "")
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        message = f"{kind} needs pillow-heif where it is decoded: pip install 'pawserve[heif]'"
        raise ImageError(Reason.UNSUPPORTED, message) from error
    image: Image.Image = HeifImageFile(stream, "")  # type: ignore[no-untyped-call]
    return image
