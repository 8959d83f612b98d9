"""Writes the sample data set: drawings of cats and dogs in the folders that `fit` reads."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from serving.system.files import filling
from training.samples.drawing import Kind, draw

JPEG_QUALITY = 90
KINDS: tuple[Kind, ...] = get_args(Kind)


def write_sample(
    out: Path,
    *,
    per_class: int = 150,
    valid_per_class: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a sample set into the folder `out`: train/cats, train/dogs, valid/cats and valid/dogs, as JPEG files.

    The same seed gives the same files, byte for byte, under the same versions of numpy and Pillow. A larger
    `per_class` adds drawings to the training set and leaves the validation set as it is. The folder appears under
    its name only once it is complete.

    Args:
        out: a folder that does not exist yet, or an empty one.
        per_class: training images of each class, at least 1.
        valid_per_class: validation images of each class, at least 1; none of them is in the training set.
        seed: 0 or more.
        on_progress: called with (images drawn, images in all).

    Raises:
        ValueError: for a number that is too small, or an `out` that is not empty; nothing is overwritten.
    """
    for name, value, least in (("per_class", per_class, 1), ("valid_per_class", valid_per_class, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}, but must be {least} or more")
    files = list(_files(per_class, valid_per_class))
    with filling(out) as folder:
        for done, (kind, number, file) in enumerate(files, start=1):
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(kind, np.random.default_rng([seed, KINDS.index(kind), number])).save(target, quality=JPEG_QUALITY)
            if on_progress is not None:
                on_progress(done, len(files))


def _files(per_class: int, valid_per_class: int) -> Iterator[tuple[Kind, int, Path]]:
    """Kind, number and file of every image; the numbers continue from the validation set to the training set."""
    for kind in KINDS:
        for number in range(valid_per_class + per_class):
            part = "valid" if number < valid_per_class else "train"
            yield kind, number, Path(part, f"{kind}s", f"{kind}.{number + 1:04d}.jpg")
