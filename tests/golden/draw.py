"""Draws the files of this folder: one picture in several formats, and the pixels that they are decoded to.

Run `python -m tests.golden.draw` only when the pixels are meant to change, together with PIXELS_VERSION.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from serving.image.preprocess import Preprocess
from serving.image.views import make_views

FOLDER = Path(__file__).parent
PREPROCESS = Preprocess(resize=64, crop=56)
SIZE = (150, 110)


def picture() -> Image.Image:
    """Edges, gradients and corners that differ: a wrong turn, channel order or resize shows."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([x * 255 // SIZE[0], y * 255 // SIZE[1], (x + y) % 64 * 3], 2).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 10, 50, 40), fill=(255, 0, 0))
    draw.ellipse((80, 50, 140, 100), fill=(0, 0, 255), outline="white", width=3)
    draw.line((20, 105, 140, 5), fill="black", width=2)
    return image


def main() -> None:
    image = picture()
    for name, options in (
        ("picture.jpg", {"quality": 90}),
        ("progressive.jpg", {"quality": 90, "progressive": True}),
        ("picture.png", {}),
        ("picture.webp", {"lossless": True}),
        ("picture.gif", {}),
        ("picture.bmp", {}),
        ("picture.tiff", {"compression": "tiff_lzw"}),
    ):
        image.save(FOLDER / name, **options)
    image.resize((600, 440)).save(FOLDER / "large.jpg", quality=90)
    for name in sorted(path.name for path in FOLDER.glob("*.*") if path.suffix not in (".py", ".npz")):
        canvas = PREPROCESS.canvas((FOLDER / name).read_bytes())
        np.savez_compressed(FOLDER / f"{name}.npz", canvas=canvas, views=make_views(canvas, PREPROCESS.crop, count=4))


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    """The bytes of a picture in some format."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
