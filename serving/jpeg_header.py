"""A JPEG file in; its size, if the file is plain enough for the fast path, out.

Pillow reads every segment of a header in Python: of the time that a small photo takes, a tenth. This walk looks only
for what tells a plain file from one that somebody should look at more closely.
"""

from serving.file_parts import MAX_PARTS

_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # TEM, RST0 to RST7: markers without a segment
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
        if marker == 0xFF or marker in _STANDALONE:
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
