"""An encoded picture in; how many parts its file is made of out, as far as reading them takes time.

Pillow reads segments, chunks and blocks one by one in Python: a file of 16 MiB can have millions of them, and keep a
worker, and the interpreter, busy for many seconds. Real files have some hundreds at most.

A JPEG file in; its size, if the file is plain enough for the fast path, out.

Pillow reads every segment of a header in Python: of the time that a small photo takes, a tenth. This walk looks only
for what tells a plain file from one that somebody should look at more closely.

A TIFF file in; how large its tiles claim to be, and how many there are, out.

The size of a tile is the file's own choice, whatever the size of its picture, and the decoder takes the memory of a
whole tile: a file of 300 bytes may ask for gigabytes. Pillow's reading of the tags is no help: of a tag that stands
there twice it takes the last one, and the decoder the first.

The header of a WebP file in; its canvas's size out, before Pillow reserves memory for it.
"""

import struct

MAX_PARTS = 10_000

_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # of JPEG: markers without a segment (ITU-T T.81, table B.1)
_START_OF_SCAN = 0xDA


def has_too_many_parts(data: bytes) -> bool:
    """Whether a JPEG, PNG or GIF has more than MAX_PARTS parts, not counting what other software never reads."""
    if data[:2] == b"\xff\xd8":
        return _jpeg_segments(data) > MAX_PARTS
    if data[:4] == b"\x89PNG":
        return _png_chunks(data) > MAX_PARTS
    return data[:4] == b"GIF8" and _gif_blocks(data) > MAX_PARTS


def _jpeg_segments(data: bytes) -> int:
    """Segments, and bytes between them, before the first scan."""
    at, found = 2, 0
    while at + 4 <= len(data) and found <= MAX_PARTS:
        found += 1
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
        elif marker == _START_OF_SCAN:
            break
        elif marker in _STANDALONE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return found


def _png_chunks(data: bytes) -> int:
    """Chunks, also those after the pixels."""
    at, found = 8, 0
    while at + 8 <= len(data) and found <= MAX_PARTS:
        found += 1
        at += 12 + int.from_bytes(data[at : at + 4])
    return found


def _gif_blocks(data: bytes) -> int:
    """Blocks of extensions, and bytes between them, before the first frame."""
    flags = data[10] if len(data) > 10 else 0
    at, found = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0
    while at + 2 < len(data) and found <= MAX_PARTS and data[at] not in b",;":
        found += 1
        if data[at] != ord("!"):
            at += 1
            continue
        at += 2
        while at < len(data) and data[at] and found <= MAX_PARTS:
            found += 1
            at += 1 + data[at]
        at += 1
    return found


_WITHOUT_SEGMENT = {0x01, *range(0xD0, 0xD8)}  # TEM, RST0 to RST7: markers without a segment
_SEQUENTIAL = {0xC0, 0xC1}  # SOF0, SOF1: Huffman-coded, not progressive
_EXIF_OR_XMP, _START_OF_SCAN = 0xE1, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def plain_size(data: bytes, *, turned: bool = False) -> tuple[int, int] | None:
    """Width and height in pixels of a JPEG that is decoded row by row, and whose pixels can be taken as they come.

    Args:
        data: the file.
        turned: whether it may have a segment that could hold an orientation (EXIF, XMP).

    Returns:
        None for all but this: 8 bits a sample, grey or three components, sequential, all components in the one scan.
        Of any other the decoder keeps all coefficients. Markers: ITU-T T.81, table B.1.
    """
    if data[:2] != b"\xff\xd8":
        return None
    size: tuple[int, int] | None = None
    components = 0
    at, steps = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and (steps := steps + 1) <= MAX_PARTS:
        marker = data[at + 1]
        if marker == 0xFF or marker in _WITHOUT_SEGMENT:
            at += 1 if marker == 0xFF else 2
            continue
        body = at + 4
        if marker == _START_OF_SCAN:
            return size if body < len(data) and data[body] == components else None
        if marker == _EXIF_OR_XMP and not turned:
            return None
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL or size or body + 6 > len(data) or data[body] != 8:
                return None
            height, width = int.from_bytes(data[body + 1 : body + 3]), int.from_bytes(data[body + 3 : body + 5])
            components = data[body + 5]
            if not (height and width and components in (1, 3)):
                return None
            size = width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


_TILE_WIDTH, _TILE_LENGTH = 322, 323
_OFFSETS = {273, 324}  # StripOffsets, TileOffsets
_FORMATS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8


def tiling(data: bytes) -> tuple[int, int]:
    """The first directory of a TIFF (6.0, or BigTIFF).

    Returns:
        The largest tile that it could mean, in pixels, 0 without tiles; and how many strips or tiles there are.

    Raises:
        struct.error: if the file ends before its directory does.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset_format, count_format, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, at)
    at += struct.calcsize(count_format)
    largest = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    pieces = 0
    for entry in range(at, min(at + count * entry_size, len(data) - entry_size + 1), entry_size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in _OFFSETS:
            pieces = max(pieces, struct.unpack_from(order + offset_format, data, entry + 4)[0])
        if tag in largest and kind in _FORMATS:
            (value,) = struct.unpack_from(order + _FORMATS[kind], data, entry + (12 if big else 8))
            largest[tag] = max(largest[tag], value)
    return largest[_TILE_WIDTH] * largest[_TILE_LENGTH], pieces


def canvas_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as RFC 9649 places them; None if the bytes do not begin as a WebP file does."""
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
