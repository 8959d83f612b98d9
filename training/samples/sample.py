"""The sample set: a folder comes in, out come drawings of cats and dogs sorted as images to train on would be.

The images are drawn, not photographed: they let everything run without a download, and no more than that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from serving.system.files import new_folder
from training.samples.drawing import Kind, draw

JPEG_QUALITY = 90
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class SampleCounts:
    """How many drawings a sample holds, both kinds together."""

    train: int
    valid: int


def write_sample(
    out: Path,
    *,
    per_class: int = 150,
    valid_per_class: int = 50,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> SampleCounts:
    """Draws a sample set into the folder `out`: train/cats, train/dogs, valid/cats and valid/dogs, as JPEG files.

    The same seed gives the same files, byte for byte, under the same versions of numpy and Pillow. A larger
    `per_class` adds drawings to the training set and leaves the validation set as it is. The folder appears under
    its name only once it is complete.

    Args:
        out: a folder that does not exist yet, or an empty one.
        per_class: drawings of each kind to train on, at least 1.
        valid_per_class: drawings of each kind to validate on, at least 1; none of them is in the training set.
        seed: which drawings, 0 or more.
        on_progress: called after each drawing with how many are done and how many there will be.

    Raises:
        ValueError: for a number that is too small, or an `out` that holds anything; nothing is overwritten.
    """
    least = {"per_class": (per_class, 1), "valid_per_class": (valid_per_class, 1), "seed": (seed, 0)}
    for name, (given, smallest) in least.items():
        if given < smallest:
            raise ValueError(f"{name} is {given}, but must be {smallest} or more: try {name}={smallest}")
    out = out.resolve()
    _check_free(out)
    images = list(_images(per_class, valid_per_class))
    with new_folder(out.parent, out.name) as partial:
        for done, (kind, number, file) in enumerate(images, start=1):
            target = partial / file
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(kind, np.random.default_rng([seed, KINDS.index(kind), number])).save(target, quality=JPEG_QUALITY)
            if on_progress is not None:
                on_progress(done, len(images))
        partial.rename(out)
    return SampleCounts(train=per_class * len(KINDS), valid=valid_per_class * len(KINDS))


def _check_free(out: Path) -> None:
    """Refuses to write where there is anything already."""
    if out.is_dir():
        held = sorted(entry.name for entry in out.iterdir())
        if held:
            raise ValueError(
                f"{out} is not empty (it holds {held[0]!r}), and nothing is overwritten: name a new or an empty folder"
            )
    elif out.exists():
        raise ValueError(f"{out} is a file, and nothing is overwritten: name a new or an empty folder")


def _images(per_class: int, valid_per_class: int) -> Iterator[tuple[Kind, int, Path]]:
    """Kind, number and file of every image.

    The numbers run on from the validation set to the training set, so that no image is in both.
    """
    for kind in KINDS:
        for number in range(valid_per_class + per_class):
            split = "valid" if number < valid_per_class else "train"
            yield kind, number, Path(split, f"{kind}s", f"{kind}.{number + 1:04d}.jpg")
