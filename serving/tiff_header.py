"""A TIFF file in; how large its tiles claim to be, and how many there are, out.

The size of a tile is the file's own choice, whatever the size of its picture, and the decoder takes the memory of a
whole tile: a file of 300 bytes may ask for gigabytes. Pillow's reading of the tags is no help: of a tag that stands
there twice it takes the last one, and the decoder the first.
"""

import struct

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
