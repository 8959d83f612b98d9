"""The header of a WebP file in; its canvas's size out, before Pillow reserves memory for it."""


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
