"""What the images of a data set are like: counts, sizes, formats, and images that stand out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.checks.image_facts import FORMATS, MODES
from training.data.layout import listed

DARK, BRIGHT = 60, 195
"""An image is dark if 99 of 100 pixels are darker than this, bright if 99 of 100 are brighter. Of 255."""
BLANK = 12
"""An image is blank if the luma of its middle 98 of 100 pixels spans less than this."""
BLURRED = 0.6
"""An image is blurred if its blur effect is above this; that of sharp images is 0.15 to 0.5."""
SMALL = 64
"""Pixels of the short side."""
TINY_CLASS = 20
"""Training images."""
DOMINANT = 10.0
"""Times as many training images as the smallest class."""


@dataclass(frozen=True)
class Oddity:
    """Images that stand out for one reason."""

    name: str
    advice: str
    indices: list[int]
    """Into the images; the most extreme first."""


def find_oddities(facts_N: NDArray[np.void]) -> list[Oddity]:
    """Blank, dark, bright, blurred and small images.

    Args:
        facts_N: `RECORD` of each image.
    """
    dark_N, bright_N = facts_N["dark"], facts_N["bright"]
    short_N = np.minimum(facts_N["width"], facts_N["height"])
    blank = bright_N - dark_N < BLANK
    found = []
    for name, advice, chosen, rank in (
        ("blank", "nearly one colour: remove them, unless that is what a class looks like", blank, bright_N - dark_N),
        ("dark", "nearly black: remove them, or correct their exposure", ~blank & (bright_N < DARK), bright_N),
        ("bright", "nearly white: remove them, or correct their exposure", ~blank & (dark_N > BRIGHT), -dark_N),
        (
            "blurred",
            "out of focus or enlarged: keep them only if such images will be classified later",
            ~blank & (facts_N["blur"] > BLURRED),
            -facts_N["blur"],
        ),
        ("small", f"less than {SMALL} pixels: they are enlarged, and show little", short_N < SMALL, short_N),
    ):
        indices = np.flatnonzero(chosen)
        found.append(Oddity(name, advice, indices[np.argsort(rank[indices], kind="stable")].tolist()))
    return found


def class_advice(train_K: Sequence[int], classes: Sequence[str]) -> list[str]:
    """What to do about classes that are tiny or dominant.

    Args:
        train_K: training images of each class.
    """
    advice = []
    few = [f"{name} ({count:,})" for name, count in zip(classes, train_K, strict=True) if count < TINY_CLASS]
    if few:
        advice.append(
            f"classes with fewer than {TINY_CLASS} training images: {listed(few)}. Add images, or merge classes: their "
            "accuracy cannot be estimated well"
        )
    least, most = min(train_K), max(train_K)
    if most > DOMINANT * max(least, 1):
        advice.append(
            f"{classes[train_K.index(most)]} has {most:,} training images, {classes[train_K.index(least)]} {least:,}: "
            "the larger class will be preferred. Add images of the smaller classes, or train with --class-weights "
            "balanced, and read the results by class"
        )
    return advice


def size_table(facts_N: NDArray[np.void]) -> dict[str, list[float]]:
    """The 0, 5, 50, 95 and 100% points of width, height, aspect ratio and bytes."""
    wide = {
        "width, pixels": facts_N["width"],
        "height, pixels": facts_N["height"],
        "width / height": facts_N["width"] / np.maximum(facts_N["height"], 1),
        "file, kB": facts_N["bytes"] / 1000,
    }
    return {
        name: [round(float(point), 2) for point in np.percentile(v, (0, 5, 50, 95, 100))] for name, v in wide.items()
    }


def kinds(facts_N: NDArray[np.void]) -> dict[str, int]:
    """How many images there are of each format and colour mode, most first."""
    pairs = Counter(zip(facts_N["format"].tolist(), facts_N["mode"].tolist(), strict=True))
    return {f"{FORMATS[form]}, {MODES[mode]}": count for (form, mode), count in pairs.most_common()}
