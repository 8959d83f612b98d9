"""An encoded picture in; how many parts its file is made of out, as far as reading them takes time.

Pillow reads segments, chunks and blocks one by one in Python: a file of 16 MiB can have millions of them, and keep a
worker, and the interpreter, busy for many seconds. Real files have some hundreds at most.
"""

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
