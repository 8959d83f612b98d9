"""Training warns of classes whose 16-bit images are nearly black."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, grey16_png
from training.data.dark import dark_classes, say_dark
from training.data.images import LabelledImage, Split

VALUES = np.arange(4096, dtype=np.uint16).reshape(64, 64)
DARK, BRIGHT, DECLARED = grey16_png(VALUES), grey16_png(VALUES + 1), grey16_png(VALUES, 12)
BLACK = encoded(Image.new("L", (8, 8)), "PNG")
TIFF = encoded(Image.fromarray(VALUES), "TIFF")
CLASSES = {
    "declared": [DECLARED, DECLARED],
    "eight bits": [BLACK, BLACK],
    "mixed": [BLACK, DARK],
    "one is bright": [DARK, BRIGHT],
    "tiffs": [TIFF, TIFF],
}


def test_classes_whose_16_bit_files_hold_fewer_bits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = []
    for label, (name, contents) in enumerate(CLASSES.items()):
        for number, content in enumerate(contents):
            path = tmp_path / f"{name} {number}{'.tif' if name == 'tiffs' else '.png'}"
            path.write_bytes(content)
            images.append(LabelledImage(path, label, sha256(content).digest()))
    split = Split(tuple(CLASSES), images[::2], images[1::2])
    assert dark_classes(split) == {"mixed": 1, "tiffs": 2}
    say_dark(split)
    printed = capsys.readouterr().err
    assert printed.count("warning: ") == 2
    assert "class tiffs: no value of its files with 16 bits a channel (2) reaches 4,096" in printed
    assert "multiply them by 64 or 16, or declare" in printed
