"""Sizes and part counts from the headers of encoded images, read before an image library opens them.

Pillow reads segments, chunks and blocks one by one in Python: a file of 16 MiB can have millions of them, which would
keep a worker and the interpreter busy for many seconds. Real files have some hundreds at most. For small JPEGs Pillow's
header parsing takes a tenth of the decoding time, which `plain_size` saves.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from serving.image.heif import heif_size
from serving.image.kinds import heif_format

MAX_PARTS = 10_000

# JPEG markers (ITU-T T.81, table B.1)
_STRAY = -1  # not a marker: a byte between segments
_FILL = 0xFF
_END_OF_IMAGE, _START_OF_SCAN, _EXIF_OR_XMP = 0xD9, 0xDA, 0xE1
# Markers without a segment, and those of malformed files whose segment Pillow reads byte by byte: 0x00, SOI (0xD8),
# EOI before any scan, and the extensions 0xC8 and 0xF0 to 0xFD
_STANDALONE = {0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
_SEQUENTIAL = {0xC0, 0xC1}  # SOF0, SOF1: Huffman-coded frames, not progressive
_OTHER_FRAMES = {*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC}
_NOT_PLAIN = frozenset({_STRAY, 0x00, 0xD8, *_OTHER_FRAMES})
_NOT_PLAIN_OR_EXIF = _NOT_PLAIN | {_EXIF_OR_XMP}
_WITHOUT_SEGMENT = frozenset({_STRAY, _FILL, *_STANDALONE})
_AFTER_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker that ends the data of a scan: in it 0x00 follows each 0xFF of the data, and 0xD0 to 0xD7 are restarts."""


def has_too_many_parts(data: bytes) -> bool:
    """Whether a JPEG, PNG or GIF has more than MAX_PARTS parts. Parts that no decoder reads are not counted."""
    if data[:2] == b"\xff\xd8":
        parts: Iterator[object] = _jpeg_parts(data)
    elif data[:4] == b"\x89PNG":
        parts = _png_chunks(data)
    elif data[:4] == b"GIF8":
        parts = _gif_blocks(data)
    else:
        return False
    return next(islice(parts, MAX_PARTS, None), None) is not None


def plain_size(data: bytes | memoryview, *, allow_exif: bool = False) -> tuple[int, int] | None:
    """Width and height in pixels of a plain JPEG, which the fast path decodes row by row.

    Plain is a file with 8 bits a sample, grey or three components, sequential, with all components in one scan. For
    others the decoder keeps the coefficients of the whole image in memory.

    Args:
        data: the file.
        allow_exif: whether the file may have a segment that can hold an orientation (EXIF, XMP).

    Returns:
        None for all other files.
    """
    if data[:2] != b"\xff\xd8":
        return None
    size: tuple[int, int] | None = None
    components = 0
    rejected = _NOT_PLAIN if allow_exif else _NOT_PLAIN_OR_EXIF
    for marker, body in islice(_jpeg_parts(data), MAX_PARTS):
        if marker == _START_OF_SCAN:  # the first one
            return size if body < len(data) and data[body] == components else None
        if marker in rejected:
            return None
        if marker in _SEQUENTIAL:
            if size or body + 6 > len(data) or data[body] != 8:
                return None
            height, width = int.from_bytes(data[body + 1 : body + 3]), int.from_bytes(data[body + 3 : body + 5])
            components = data[body + 5]
            if not (height and width and components in (1, 3)):
                return None
            size = width, height
    return None


def count_scans(data: bytes) -> int:
    """Scans of a JPEG, each of which a decoder adds to all pixels; those of MAX_PARTS parts at most.

    Markers inside segments, such as those of a thumbnail, and behind the end of the image are not counted: a phone
    appends a video or further images there.
    """
    return sum(marker == _START_OF_SCAN for marker, _ in islice(_jpeg_parts(data), MAX_PARTS))


def _jpeg_parts(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Marker and position of the body of each part, up to the end of the image.

    Up to the first scan, where Pillow reads, stray and fill bytes are parts too, and so is an end of the image.
    """
    at = 2
    scanned = False
    while at + 4 <= len(data):
        marker = data[at + 1] if data[at] == 0xFF else _STRAY
        if scanned and marker == _END_OF_IMAGE:
            return
        yield marker, at + 4
        if marker in _WITHOUT_SEGMENT:
            at += 2 if marker in _STANDALONE else 1
        else:
            at += 2 + max(2, data[at + 2] << 8 | data[at + 3])
        scanned = scanned or marker == _START_OF_SCAN
        if scanned:
            found = _AFTER_SCAN.search(data, at)
            if found is None:
                return
            at = found.start()


def png_significant_bits(data: bytes) -> int | None:
    """The most significant bits of a channel that a PNG declares (sBIT); None without, and for other files."""
    if data[:4] != b"\x89PNG":
        return None
    for at in islice(_png_chunks(data), MAX_PARTS):
        kind = data[at + 4 : at + 8]
        if kind == b"sBIT":
            return max(data[at + 8 : at + 8 + min(int.from_bytes(data[at : at + 4]), 4)], default=None)
        if kind == b"IDAT":
            return None
    return None


def full_size(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height in pixels of an image that is decoded at full size, as its header says.

    Returns:
        Zeros for a plain JPEG, which is decoded at a smaller scale, and for bytes that are no image or end early.
    """
    if data[:2] == b"\xff\xd8":
        return (0, 0) if plain_size(data, allow_exif=True) else _jpeg_frame(data)
    if data[:4] == b"\x89PNG":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data[:4] == b"GIF8":
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if data[:2] == b"BM":
        side = 2 if data[14:18] == b"\x0c\0\0\0" else 4  # bytes of a number; the first is of OS/2
        width, height = (int.from_bytes(data[at : at + side], "little", signed=side == 4) for at in (18, 18 + side))
        return abs(width), abs(height)
    if data[:4] in TIFF_SIGNATURES:
        sizes = {_IMAGE_WIDTH: 0, _IMAGE_LENGTH: 0}
        with suppress(struct.error):
            for tag, _, value in islice(_tiff_entries(data), MAX_PARTS):
                if tag in sizes:
                    sizes[tag] = max(sizes[tag], value)
        return sizes[_IMAGE_WIDTH], sizes[_IMAGE_LENGTH]
    if kind := heif_format(data):
        with suppress(ValueError):  # the file has more boxes than real files have
            return heif_size(data, av1=kind == "AVIF")
    return canvas_size(data) or (0, 0)


def _jpeg_frame(data: bytes | memoryview) -> tuple[int, int]:
    for marker, body in islice(_jpeg_parts(data), MAX_PARTS):
        if marker == _START_OF_SCAN:
            break
        if marker in _SEQUENTIAL or marker in _OTHER_FRAMES:
            return int.from_bytes(data[body + 3 : body + 5]), int.from_bytes(data[body + 1 : body + 3])
    return 0, 0


def _png_chunks(data: bytes) -> Iterator[int]:
    """Positions of the chunks up to IEND, including those after the pixels."""
    at = 8
    while at + 8 <= len(data):
        yield at
        if data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(data[at : at + 4])


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Positions of extensions, of their blocks and of stray bytes before the first frame."""
    flags = data[10] if len(data) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while at + 2 < len(data) and data[at] not in b",;":
        yield at
        if data[at] != ord("!"):
            at += 1
            continue
        at += 2
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1


TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_IMAGE_WIDTH, _IMAGE_LENGTH = 256, 257
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_OFFSETS = {273, 324}  # StripOffsets, TileOffsets
_FORMATS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8


def tiling(data: bytes) -> tuple[int, int]:
    """Tile size and number of parts in the first directory of a TIFF (6.0 or BigTIFF).

    The file chooses its tile size independently of the image size, and the decoder allocates a whole tile: a file of
    300 bytes may ask for gigabytes. If a tag is repeated, Pillow uses the last one and the decoder the first, so the
    largest is returned.

    Returns:
        The largest possible tile in pixels, 0 without tiles, and the number of strips or tiles.

    Raises:
        struct.error: if the file ends before its directory does.
    """
    largest = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    pieces = 0
    for tag, count, value in _tiff_entries(data):
        if tag in _OFFSETS:
            pieces = max(pieces, count)
        if tag in largest:
            largest[tag] = max(largest[tag], value)
    return largest[_TILE_WIDTH] * largest[_TILE_LENGTH], pieces


def _tiff_entries(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Tag, number of values and value of the entries of the first directory; 0 if the value is no integer."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset_format, count_format, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
    at = min(at, len(data))  # `struct` takes no offset of 64 bits
    (count,) = struct.unpack_from(order + count_format, data, at)
    at += struct.calcsize(count_format)
    for entry in range(at, min(at + count * entry_size, len(data) - entry_size + 1), entry_size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        (values,) = struct.unpack_from(order + offset_format, data, entry + 4)
        value = 0
        if kind in _FORMATS:
            (value,) = struct.unpack_from(order + _FORMATS[kind], data, entry + (12 if big else 8))
        yield tag, values, value


def canvas_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height in pixels of a WebP file (RFC 9649), whose decoder allocates the canvas when it is opened.

    Returns:
        None if the bytes do not begin as a WebP file.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    match data[12:16]:
        case b"VP8X":  # two numbers of 24 bits, each less by one, after four bytes of flags
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":  # two numbers of 14 bits, each less by one, after the signature's byte
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":  # two numbers of 14 bits, with two bits of scaling each, after the frame's tag and start code
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None
