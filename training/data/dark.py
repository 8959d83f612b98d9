"""Classes whose 16-bit images are nearly black: 10 or 12 bits a channel that fill the lowest bits of 16."""

from collections import defaultdict
from pathlib import Path

from PIL import Image

from serving.image.decode import decode
from training.console import say
from training.data.images import LabelledImage, Split, or_reason

SUFFIXES = {".png", ".tif", ".tiff"}
"""Suffixes of files with 16 bits a channel."""
DARK = 4096 >> 8
"""4,096 of 65,535, in 8 bits."""


def say_dark(split: Split) -> None:
    """Warn of each class whose files of 16 bits a channel hold no value of 4,096 or more."""
    for name, count in dark_classes(split).items():
        say(
            f"warning: class {name}: no value of its files with 16 bits a channel ({count:,}) reaches 4,096 of 65,535, "
            "so the images are nearly black. If the values have 10 or 12 bits, multiply them by 64 or 16, or declare "
            "the bits: sBIT in PNGs, MaxSampleValue (1023 or 4095) in grey TIFFs"
        )


def dark_classes(split: Split) -> dict[str, int]:
    """The number of 16-bit files of each class in which all of them are nearly black.

    A class is finished with its first file that is not: mostly one file of a class is decoded.
    """
    by_label: dict[int, list[LabelledImage]] = defaultdict(list)
    for image in split.train + split.valid:
        if image.path.suffix.lower() in SUFFIXES:
            by_label[image.label].append(image)
    dark: dict[str, int] = {}
    for label, images in sorted(by_label.items()):
        wide = [image for image in images if _has_16_bits(image.path)]
        if wide and all(map(_is_dark, wide)):
            dark[split.classes[label]] = len(wide)
    return dark


def _has_16_bits(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return ";16" in str(image.tile)  # how Pillow decodes each part, such as ('I;16B', 0, 1)
    except Exception:  # what cannot be opened is reported elsewhere; Pillow raises errors of any kind
        return False


def _is_dark(image: LabelledImage) -> bool:
    highest = or_reason(lambda: int(decode(image.read(), limits=image.limits).max()))
    return isinstance(highest, int) and highest < DARK
