"""Images for tests."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

SIZE = (150, 110)


def sample_image() -> Image.Image:
    """Edges, gradients and corners that differ: a wrong turn, channel order or resize shows."""
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


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat))
    return b"\x89PNG\r\n\x1a\n" + chunks
