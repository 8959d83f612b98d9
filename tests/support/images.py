"""Images for tests."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = (150, 110)


def sample_image() -> Image.Image:
    """An image with edges, gradients and different corners, so that a wrong rotation, channel order or size shows."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([x * 255 // SIZE[0], y * 255 // SIZE[1], (x + y) % 64 * 3], 2).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 10, 50, 40), fill=(255, 0, 0))
    draw.ellipse((80, 50, 140, 100), fill=(0, 0, 255), outline="white", width=3)
    draw.line((20, 105, 140, 5), fill="black", width=2)
    return image


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    """The bytes of an image in a format."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


RED = encoded(Image.new("RGB", (80, 60), "red"), "JPEG")


def heic(image: Image.Image, **options: object) -> bytes:
    """The bytes of an image as HEIC; the test is skipped where pillow-heif is missing."""
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


def grey16_png(values_HW: NDArray[np.uint16], significant_bits: int | None = None) -> bytes:
    """A grey PNG with 16 bits a pixel, which may declare how many of them are significant (sBIT)."""
    return png16(values_HW[..., None], significant_bits)


def png16(values_HWC: NDArray[np.uint16], significant_bits: int | None = None) -> bytes:
    """A PNG with 16 bits a channel: grey, grey with alpha, RGB or RGBA; it may declare significant bits (sBIT)."""
    height, width, channels = values_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)]
    chunks += [b"sBIT" + bytes([significant_bits] * channels)] if significant_bits else []
    chunks += [b"IDAT" + zlib.compress(rows), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks
    )


def grey12_tiff(values_HW: NDArray[np.uint16]) -> bytes:
    """A grey TIFF with 12 bits a pixel, two pixels in three bytes; the width is even."""
    height, width = values_HW.shape
    first, second = values_HW[:, ::2], values_HW[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 2).astype(np.uint8).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1)]
    tags += [(278, height), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat))
    return b"\x89PNG\r\n\x1a\n" + chunks
