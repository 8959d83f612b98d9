"""Labelled images, and which of them to train and to validate on.

Where there is no validation split, a seeded part of each class is held out.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.image.decode import OWN_IMAGE_LIMITS, ImageError, Limits, Reason
from serving.image.folders import Skipped, describe_skipped
from serving.image.preprocess import Preprocess
from training.data.layout import TRAIN, VALID, DataError, listed

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image file of a class."""

    path: Path
    label: int
    """Index into the classes."""
    sha256: bytes = b""
    """SHA-256 of the file's content: 32 bytes."""
    limits: Limits = OWN_IMAGE_LIMITS
    """Larger images are not decoded."""

    def read(self) -> bytes:
        """The file's content, checked.

        Raises:
            DataError: if it cannot be read, or its hash has changed.
        """
        try:
            content = self._content()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(content).digest() != self.sha256:
            raise DataError(f"{self.path} has changed since it was first read")
        return content

    def canvas(self, preprocess: Preprocess) -> NDArray[np.uint8]:
        """The square in the middle of the image, decoded and resized: uint8 `[resize, resize, 3]`.

        Raises:
            DataError: as `read` does.
            ImageError: if it cannot be decoded.
        """
        return preprocess.canvas(self.read(), limits=self.limits)

    def views(self, preprocess: Preprocess, count: int = 1) -> NDArray[np.uint8]:
        """The image's first views: uint8 `[count, crop, crop, 3]`.

        Raises:
            DataError: as `read` does.
            ImageError: if it cannot be decoded.
        """
        return preprocess.views(self.read(), count, limits=self.limits)

    def _content(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class Split:
    """Training and validation images of the same classes."""

    classes: tuple[str, ...]
    train: list[LabelledImage]
    valid: list[LabelledImage]

    def fingerprint(self) -> str:
        """SHA-256 over the classes and every image's part, class and content; file names do not matter."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for part, images in ((TRAIN, self.train), (VALID, self.valid)):
            for image in sorted(images, key=lambda image: (image.label, image.sha256)):
                digest.update(f"{part} {image.label} ".encode() + image.sha256)
        return digest.hexdigest()

    def halves(self, seed: int) -> tuple["Split", "Split"]:
        """Each half of the training images of each class to train on, and the other to measure on; copies together."""
        half = _hold_out(self.train, self.classes, 0.5, seed)
        return half, Split(self.classes, half.valid, half.train)

    def shared(self) -> list[tuple[LabelledImage, LabelledImage]]:
        """Pairs of a training and a validation image with the same content, which make validation look too good."""
        train = {image.sha256: image for image in self.train}
        return [(train[image.sha256], image) for image in self.valid if image.sha256 in train]

    def contradictory(self) -> list[tuple[LabelledImage, LabelledImage]]:
        """Pairs of images with the same content in two classes: one of the labels is incorrect."""
        first: dict[bytes, LabelledImage] = {}
        images = self.train + self.valid
        pairs = ((first.setdefault(image.sha256, image), image) for image in images)
        return [(one, other) for one, other in pairs if one.label != other.label]


@dataclass(frozen=True)
class ImageSet:
    """The labelled images of a data set, before any is held out."""

    classes: tuple[str, ...]
    train: list[LabelledImage]
    valid: list[LabelledImage] | None
    """None if a part of `train` is to be held out."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    """Notes for the user: how the folders were understood."""
    train_only: list[LabelledImage] = field(default_factory=list)
    """Images from elsewhere, to train on as on `train`; none of them is held out."""

    def split(self, *, valid_fraction: float, seed: int, unreadable: Collection[Skipped] = ()) -> Split:
        """The images to train and to validate on.

        Args:
            valid_fraction: part of each class to hold out, where there is no validation split. The choice depends on
                the seed and each image's content alone, so copies of one image land in the same part.
            unreadable: images to leave out; none of them is held out.

        Raises:
            DataError: if there are fewer than two classes, or one has too few images, with what is left out of it.
        """
        left_out = {each.path for each in unreadable}
        train = [image for image in self.train if image.path not in left_out]
        if self.valid is not None:
            split = Split(self.classes, train, [image for image in self.valid if image.path not in left_out])
        else:
            split = _hold_out(train, self.classes, valid_fraction, seed)
        split.train.extend(image for image in self.train_only if image.path not in left_out)
        self._check(split, [*self.skipped, *unreadable])
        return split

    def _check(self, split: Split, skipped: list[Skipped]) -> None:
        if len(self.classes) < 2:
            raise DataError(
                f"there is one class ({', '.join(self.classes) or 'none'}); a classifier needs images of at least two, "
                "each in a folder of its own" + _reasons(skipped)
            )
        for part, images in ((TRAIN, split.train), (VALID, split.valid)):
            counts = Counter(image.label for image in images)
            if not (empty := [name for label, name in enumerate(self.classes) if not counts[label]]):
                continue
            if self.valid is not None:
                need = f"have no readable image in the {part} part: {listed(empty)}; each needs at least one there"
            else:
                there = Counter(image.label for image in split.train + split.valid)
                found = [f"{name} ({there[self.classes.index(name)]})" for name in empty]
                need = (
                    f"have too few readable images, not counting copies: {listed(found)}; each needs at least two, to "
                    "train and to validate on"
                )
            raise DataError(
                f"{len(empty)} of {len(self.classes)} classes {need}: add images, or remove the folder"
                + _reasons(skipped)
            )


def labels_of(images: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """Class indices int64 `[len(images)]`."""
    return np.array([image.label for image in images], np.int64)


def or_reason(read: Callable[[], _T]) -> _T | str:
    """What reading an image gives, or the reason why the image cannot be used."""
    try:
        return read()
    except ImageError as error:
        option = " (--max-image-mib, --max-pixels)" if error.reason == Reason.TOO_LARGE else ""
        return f"{error.reason}: {error}{option}"
    except DataError as error:
        return str(error)


def _hold_out(images: list[LabelledImage], classes: tuple[str, ...], fraction: float, seed: int) -> Split:
    """Hold out the images of each class with the smallest seeded hashes of their contents: at least one of them."""
    by_label: dict[int, dict[bytes, list[LabelledImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        by_label[image.label][hashlib.sha256(b"%d " % seed + image.sha256).digest()].append(image)
    held_out: set[Path] = set()
    for copies in by_label.values():
        if len(copies) < 2:
            continue  # the check then names the class
        count = min(max(round(len(copies) * fraction), 1), len(copies) - 1)
        held_out.update(image.path for key in sorted(copies)[:count] for image in copies[key])
    train = [image for image in images if image.path not in held_out]
    return Split(classes, train, [image for image in images if image.path in held_out])


def _reasons(skipped: Sequence[Skipped]) -> str:
    return "".join(f"\n{line}" for line in describe_skipped(skipped))
