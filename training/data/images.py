"""Labelled images in a folder: classes, and which images to train and to validate on.

Two layouts are read: `train/CLASS/*` with `valid/CLASS/*`, or one folder `CLASS/*` of which a seeded part of each
class is held out. Classes are sorted by name. Folders inside a class are searched too; hidden ones are left out.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.image.decode import ImageError, decode
from serving.system.cpus import available_cpus
from training.console import progress, say

TRAIN, VALID = "train", "valid"
PART_NAMES = {"train", "training", "valid", "validation", "val", "test"}
"""Usual names of the parts of a data set; hardly ever the names of all its classes."""
MAX_LISTED = 10
"""Names or files in a message."""
_T = TypeVar("_T")


class DataError(ValueError):
    """A data set that cannot be used; the message says why and what is needed."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image file of a class."""

    path: Path
    label: int
    """Index into the classes."""
    sha256: bytes = b""
    """Of the file's content: 32 bytes."""

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

    def _content(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"path": str(self.path), "reason": self.reason}


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

    def check(self) -> None:
        """Check that every class can be trained and validated.

        Raises:
            DataError: if there are fewer than two classes, or one has no training or no validation image.
        """
        if len(self.classes) < 2:
            raise DataError(
                f"there is one class ({', '.join(self.classes) or 'none'}); a classifier needs images of at least two, "
                "each in a folder of its own"
            )
        for part, images in ((TRAIN, self.train), (VALID, self.valid)):
            counts = Counter(image.label for image in images)
            if empty := [name for label, name in enumerate(self.classes) if not counts[label]]:
                raise DataError(
                    f"{len(empty)} of {len(self.classes)} classes have no readable image in the {part} part: "
                    f"{listed(empty)}; add images, or remove the folder"
                )

    def shared(self) -> list[tuple[LabelledImage, LabelledImage]]:
        """Pairs of a training and a validation image with the same content, which make validation look too good."""
        train = {image.sha256: image for image in self.train}
        return [(train[image.sha256], image) for image in self.valid if image.sha256 in train]


def read_split(
    data: Path, *, valid_fraction: float, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Split, list[Skipped]]:
    """Find the images below a folder and hash their contents.

    Args:
        valid_fraction: part of each class to hold out, where there is no `valid` folder. The choice depends on the
            seed and each image's content alone, so copies of one image land in the same part.
        on_progress: called with (files hashed, files in all).

    Returns:
        The split, and the files that could not be read.

    Raises:
        DataError: for a folder of another layout, or without enough classes.
    """
    train, valid = data / TRAIN, data / VALID
    if printable(str(data)) != str(data):
        raise DataError(f"the path {printable(str(data))} is not UTF-8; rename the folder")
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; give one with train/CLASS/* and valid/CLASS/*, or with CLASS/*")
    if train.is_dir() != valid.is_dir():
        there, missing = (TRAIN, VALID) if train.is_dir() else (VALID, TRAIN)
        raise DataError(
            f"{data} has a folder {there} but no folder {missing}; have both, or only folders of classes. There are "
            f"{listed(class_names(data))}"
        )
    if not train.is_dir():
        classes = class_names(data)
        if len(classes) > 1 and {name.casefold() for name in classes} <= PART_NAMES:
            raise DataError(
                f"{data} has the folders {listed(classes)}, which are names of parts of a data set, not of classes; "
                f"name them {TRAIN} and {VALID}, with a folder for each class in both"
            )
        images, skipped = hash_images(list_images(data, classes), on_progress)
        split = _hold_out(images, classes, valid_fraction, seed)
    else:
        classes = class_names(train)
        if classes != (others := class_names(valid)):
            raise DataError(
                f"{train} and {valid} have different classes: only in train: {listed(set(classes) - set(others))}; "
                f"only in valid: {listed(set(others) - set(classes))}. Every class needs a folder in both"
            )
        images, skipped = hash_images(list_images(train, classes) + list_images(valid, classes), on_progress)
        of_train = [image.path.is_relative_to(train) for image in images]
        split = _split(classes, images, of_train)
    split.check()
    return split, skipped


def listed(names: Iterable[str], most: int = MAX_LISTED) -> str:
    """Names for a message, sorted: the first few, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def class_names(folder: Path) -> tuple[str, ...]:
    """The folders in a folder, sorted by name; hidden ones are left out.

    Raises:
        DataError: for a name that is not UTF-8, which no run or response could contain.
    """
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."))
    for name in names:
        if printable(name) != name:
            raise DataError(f"the folder {printable(name)} in {folder} has a name that is not UTF-8; rename it")
    return names


def printable(name: str) -> str:
    """A file name, with bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def list_images(folder: Path, classes: Iterable[str]) -> list[LabelledImage]:
    """The files of each class in `folder`, sorted by path, not yet hashed."""
    images = []
    for label, name in enumerate(classes):
        files = []
        for inside, folders, names in os.walk(folder / name):
            folders[:] = [each for each in folders if each[0] != "."]
            files += [Path(inside, each) for each in names if each[0] != "."]
        images += [LabelledImage(path, label) for path in sorted(files) if path.is_file()]
    return images


def labels_of(images: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """Class indices int64 `[len(images)]`."""
    return np.array([image.label for image in images], np.int64)


def hash_images(
    images: list[LabelledImage], on_progress: Callable[[int, int], None] | None
) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images with the SHA-256 of their contents, and the files that cannot be read or named."""

    def with_hash(image: LabelledImage) -> LabelledImage | Skipped:
        if (name := printable(str(image.path))) != str(image.path):
            return Skipped(Path(name), "its name is not UTF-8; rename it")
        try:
            with image.path.open("rb") as file:
                return replace(image, sha256=hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            return Skipped(image.path, f"cannot be read: {error.strerror}")

    hashed: list[LabelledImage] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor() as pool:
        for done, result in enumerate(pool.map(with_hash, images), 1):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                hashed.append(result)
            if on_progress:
                on_progress(done, len(images))
    return hashed, skipped


def say_skipped(skipped: Sequence[Skipped]) -> None:
    """Report how many files are left out, the first of them with the reason."""
    if skipped:
        say(f"left out, because they cannot be read as images: {len(skipped):,}")
        for file in skipped[:MAX_LISTED]:
            say(f"  {file.path}: {file.reason}")


def or_reason(read: Callable[[], _T]) -> _T | str:
    """What reading an image gives, or the reason why the image cannot be used."""
    try:
        return read()
    except ImageError as error:
        return f"{error.reason}: {error}"
    except DataError as error:
        return str(error)


def decodable(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images that can be decoded, in order, and the others with the reason."""
    good: list[LabelledImage] = []
    bad: list[Skipped] = []
    with ThreadPoolExecutor(available_cpus()) as pool, progress("decoding images") as on_progress:
        results = pool.map(lambda image: or_reason(lambda: decode(image.read(), min_side=1).size), images)
        for done, (image, result) in enumerate(zip(images, results, strict=True), 1):
            if isinstance(result, str):
                bad.append(Skipped(image.path, result))
            else:
                good.append(image)
            on_progress(done, len(images))
    return good, bad


def _hold_out(images: list[LabelledImage], classes: tuple[str, ...], fraction: float, seed: int) -> Split:
    """Hold out the images of each class with the smallest seeded hashes of their contents: at least one of them."""
    by_label: dict[int, dict[bytes, list[LabelledImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        by_label[image.label][hashlib.sha256(b"%d " % seed + image.sha256).digest()].append(image)
    held_out: set[Path] = set()
    for copies in by_label.values():
        if len(copies) < 2:
            continue  # the split's check then names the class
        count = min(max(round(len(copies) * fraction), 1), len(copies) - 1)
        held_out.update(image.path for key in sorted(copies)[:count] for image in copies[key])
    return _split(classes, images, [image.path not in held_out for image in images])


def _split(classes: tuple[str, ...], images: list[LabelledImage], of_train: Sequence[bool]) -> Split:
    train = [image for image, chosen in zip(images, of_train, strict=True) if chosen]
    return Split(classes, train, [image for image, chosen in zip(images, of_train, strict=True) if not chosen])
