"""Draws the files of this folder: one image in several formats, and the pixels that they are decoded to.

Run `python -m tests.golden.draw` only when the pixels are meant to change, together with PIXELS_VERSION,
or with VIEWS_VERSION if view 0 stays the same.
"""

from pathlib import Path

import numpy as np

from serving.image.preprocess import Preprocess
from tests.support.images import grey12_tiff, grey16_png, heic, sample_image

FOLDER = Path(__file__).parent
PREPROCESS = Preprocess(resize=64, crop=56)
VIEWS = 8


def main() -> None:
    image = sample_image()
    for name, options in (
        ("picture.jpg", {"quality": 90}),
        ("progressive.jpg", {"quality": 90, "progressive": True}),
        ("picture.png", {}),
        ("picture.webp", {"lossless": True}),
        ("picture.gif", {}),
        ("picture.bmp", {}),
        ("picture.tiff", {"compression": "tiff_lzw"}),
        ("picture.avif", {"quality": 90}),
    ):
        image.save(FOLDER / name, **options)
    grey12 = np.asarray(image.convert("L")).astype(np.uint16) << 4
    (FOLDER / "grey12.png").write_bytes(grey16_png(grey12 | 5, significant_bits=12))
    (FOLDER / "grey12.tiff").write_bytes(grey12_tiff(grey12))
    (FOLDER / "picture.heic").write_bytes(heic(image))
    image.resize((600, 440)).save(FOLDER / "large.jpg", quality=90)
    for name in sorted(path.name for path in FOLDER.glob("*.*") if path.suffix not in (".py", ".npz", ".sql")):
        data = (FOLDER / name).read_bytes()
        canvas, whole = PREPROCESS.canvas(data), PREPROCESS.canvas(data, whole=True)
        np.savez_compressed(FOLDER / f"{name}.npz", canvas=canvas, whole=whole, views=PREPROCESS.views(data, VIEWS))


if __name__ == "__main__":
    main()
