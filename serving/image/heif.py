"""Sizes of AVIF and HEIC files, from their boxes (ISO/IEC 14496-12, 23008-12), before a decoder allocates memory.

An AVIF image is as large as its AV1 sequence headers say, whatever its boxes declare: its decoder allocates that much
and scales the result. libheif itself rejects an HEVC image that is larger than its boxes declare.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

MAX_BOXES = 10_000
MAX_ITEMS = 2_000
"""Real files have one for each tile of 512 x 512 pixels, and a few more."""
_PROPERTIES, _PROPERTY_CONTAINER = b"iprp", b"ipco"
_FULL_BOX = 4  # version and flags
_SEQUENCE_HEADER = 1
_IDAT = 1  # construction method


def heif_size(data: bytes | memoryview, *, av1: bool) -> tuple[int, int]:
    """Width and height in pixels of the largest image in an AVIF or HEIC file.

    Args:
        data: the file.
        av1: whether its images are AV1, whose own headers count too.

    Returns:
        Zeros if there is no size: the file ends early or is damaged.

    Raises:
        ValueError: if the file has more boxes, items or AV1 units than real files have, or its items overlap, so that
            reading them would take long.
    """
    meta = next((body for kind, body in _boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        return 0, 0
    sizes = [(0, 0)]
    with suppress(IndexError):  # it ends early
        idat, locations = (0, 0), (0, 0)
        for kind, (begin, end) in _all_boxes(data, meta[0] + _FULL_BOX, meta[1]):
            if kind == b"ispe":
                at = begin + _FULL_BOX
                sizes.append((_integer(data, at, 4), _integer(data, at + 4, 4)))
            elif kind == b"av1C" and av1:
                configuration = memoryview(data)[begin + 4 : end]
                sizes += _av1_sizes(configuration, islice(_open_bitstream_units(configuration), MAX_BOXES))
            elif kind == b"idat":
                idat = begin, end
            elif kind == b"iloc":
                locations = begin, end
        if av1:
            units = 0
            for item in _items(data, locations, idat):
                found = list(islice(_open_bitstream_units(item), MAX_BOXES + 1 - units))
                units += len(found)
                if units > MAX_BOXES:
                    raise ValueError(f"the file has more than {MAX_BOXES:,} AV1 units")
                sizes += _av1_sizes(item, found)
    return max(sizes, key=lambda size: size[0] * size[1])


def _all_boxes(data: bytes | memoryview, begin: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The boxes of a meta box, and the properties in iprp/ipco."""
    pending, count = [(b"meta", begin, end)], 0
    while pending:
        parent, start, stop = pending.pop()
        for kind, body in _boxes(data, start, stop):
            count += 1
            if count > MAX_BOXES:
                raise ValueError(f"the file has more than {MAX_BOXES:,} boxes")
            if (parent, kind) in ((b"meta", _PROPERTIES), (_PROPERTIES, _PROPERTY_CONTAINER)):
                pending.append((kind, *body))
            yield kind, body


def _boxes(data: bytes | memoryview, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kind, begin and end of the body of each box."""
    for count in range(MAX_BOXES + 1):
        if at + 8 > end:
            return
        if count == MAX_BOXES:
            raise ValueError(f"the file has more than {MAX_BOXES:,} boxes in a box")
        size, header = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16]), 16
        elif size == 0:  # up to the end
            size = end - at
        if size < header:
            return
        yield bytes(data[at + 4 : at + 8]), (at + header, min(at + size, end))
        at += size


def _integer(data: bytes | memoryview, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size])


def _items(data: bytes | memoryview, locations: tuple[int, int], idat: tuple[int, int]) -> Iterator[memoryview]:
    """The content of each item that the iloc box locates.

    All together they may be twice as long as the file: items of real files do not overlap, but one may be the file.
    """
    at, end = locations
    if at == end:
        return
    version, sizes = _integer(data, at, 1), _integer(data, at + _FULL_BOX, 2)
    offset_size, length_size, base_size, index_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    number_size = 4 if version == 2 else 2
    count = _integer(data, at + _FULL_BOX + 2, number_size)
    if count > MAX_ITEMS:
        raise ValueError(f"the file has {count:,} items; at most {MAX_ITEMS:,} are allowed")
    at += _FULL_BOX + 2 + number_size
    content, left, total = memoryview(data), 2 * len(data), 0
    for _ in range(count):
        at += number_size
        method = 0
        if version:
            method = _integer(data, at, 2) & 15
            at += 2
        base = _integer(data, at + 2, base_size)
        extents = _integer(data, at + 2 + base_size, 2)
        at += 4 + base_size
        parts = []
        for _ in range(extents):
            total += 1
            if total > MAX_BOXES:
                raise ValueError(f"the items of the file have more than {MAX_BOXES:,} extents")
            if version and index_size:
                at += index_size
            begin = base + _integer(data, at, offset_size) + (idat[0] if method == _IDAT else 0)
            length = _integer(data, at + offset_size, length_size) or len(data)
            at += offset_size + length_size
            parts.append(content[begin : begin + length])
            left -= len(parts[-1])
            if left < 0:
                raise ValueError("the items of the file overlap")
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _av1_sizes(units: memoryview, found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The largest frame sizes of the sequence headers among OBUs (AV1 specification, 5.3 to 5.5)."""
    sizes = []
    with suppress(IndexError):
        for kind, begin in found:
            if kind == _SEQUENCE_HEADER:
                sizes.append(_max_frame_size(_Bits(units, begin)))
    return sizes


def _open_bitstream_units(units: memoryview) -> Iterator[tuple[int, int]]:
    """Kind and position of the body of each OBU."""
    at = 0
    while at < len(units):
        header = units[at]
        at += 2 if header & 4 else 1
        size = len(units) - at
        if header & 2:
            size = shift = 0
            while True:  # leb128
                if at == len(units):  # it ends early
                    return
                byte = units[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if not byte & 128 or shift > 56:
                    break
        yield header >> 3 & 15, at
        at += size


class _Bits:
    """Reads bits, most significant first."""

    def __init__(self, data: memoryview, begin: int) -> None:
        self._data = data
        self._at = 8 * begin

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> 7 - (self._at & 7) & 1
            self._at += 1
        return value


def _max_frame_size(bits: _Bits) -> tuple[int, int]:
    """max_frame_width and max_frame_height of a sequence header (5.5.1)."""
    bits.read(4)  # seq_profile, still_picture
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        delay_bits = 0
        if bits.read(1):  # timing_info_present_flag
            bits.read(64)
            if bits.read(1):  # equal_picture_interval: num_ticks_per_picture_minus_1 in uvlc
                zeros = 0
                while not bits.read(1) and zeros < 32:
                    zeros += 1
                bits.read(zeros if zeros < 32 else 0)
            if bits.read(1):  # decoder_model_info_present_flag
                delay_bits = 1 + bits.read(5)
                bits.read(42)
        has_initial_delay = bits.read(1)
        for _ in range(1 + bits.read(5)):  # operating points
            bits.read(12)
            if bits.read(5) > 7:  # seq_level_idx
                bits.read(1)
            if delay_bits and bits.read(1):
                bits.read(2 * delay_bits + 1)
            if has_initial_delay and bits.read(1):
                bits.read(4)
    width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
    return 1 + bits.read(width_bits), 1 + bits.read(height_bits)
