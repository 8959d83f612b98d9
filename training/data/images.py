"""A folder of images in; the classes, and what to train and to validate on, out.

Two layouts are read: `train/CLASS/*` with `valid/CLASS/*`, or one folder `CLASS/*` of which a seeded part of each
class is held out. Classes are sorted by name. Folders inside a class are searched too; what is hidden is left out.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

TRAIN, VALID = "train", "valid"
PART_NAMES = {"train", "training", "valid", "validation", "val", "test"}
"""What people call the parts of a data set, and hardly ever all of its classes."""


class DataError(ValueError):
    """A folder that cannot be trained on; the message says why and what is needed."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One file of a class."""

    path: Path
    label: int
    """Index into the classes."""
    sha256: bytes = b""
    """Of the file's contents: 32 bytes."""

    def read(self) -> bytes:
        """The file's contents, checked.

        Raises:
            DataError: if it cannot be read, or is no longer what was hashed.
        """
        try:
            content = self._content()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(content).digest() != self.sha256:
            raise DataError(f"{self.path} has changed since it was first read")
        return content

    def _content(self) -> bytes:
        if self.path.parent.suffix == ".tar":
            from training.data.shards import index_of  # which is about images, too

            if index := index_of(self):
                return index.read_image(self.path.parent.name, self.path.name)
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Split:
    """Images to train on and images to validate on, of the same classes."""

    classes: tuple[str, ...]
    train: list[LabelledImage]
    valid: list[LabelledImage]

    def fingerprint(self) -> str:
        """SHA-256 over the classes and every image's side, class and contents; names of files do not matter."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for side, images in ((TRAIN, self.train), (VALID, self.valid)):
            for image in sorted(images, key=lambda image: (image.label, image.sha256)):
                digest.update(f"{side} {image.label} ".encode() + image.sha256)
        return digest.hexdigest()

    def check(self) -> None:
        """Check that every class can be learned.

        Raises:
            DataError: if there are fewer than two classes, or one has no image to train or to validate on.
        """
        if len(self.classes) < 2:
            raise DataError(
                f"there is one class ({', '.join(self.classes) or 'none'}); a classifier needs images of at least two, "
                "each in a folder of its own"
            )
        for side, images in ((TRAIN, self.train), (VALID, self.valid)):
            counts = [0] * len(self.classes)
            for image in images:
                counts[image.label] += 1
            if empty := [name for name, count in zip(self.classes, counts, strict=True) if count == 0]:
                raise DataError(
                    f"{len(empty)} of {len(self.classes)} classes have no readable image in the {side} part: "
                    f"{listed(empty)}; add images, or remove the folder"
                )


def read_split(
    data: Path, *, valid_fraction: float, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Split, list[Skipped]]:
    """Find the images below a folder and hash their contents.

    Args:
        valid_fraction: part of each class to hold out, where there is no `valid` folder. The choice depends on the
            seed and each image's contents alone, so copies of one image land on the same side.
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
                f"{data} has the folders {listed(classes)}, which look like parts of a data set, not like classes; "
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
        of_train = list_images(train, classes)
        hashed, skipped = hash_images(of_train + list_images(valid, classes), on_progress)
        split = Split(
            classes,
            [image for image in hashed if image.path.is_relative_to(train)],
            [image for image in hashed if image.path.is_relative_to(valid)],
        )
    split.check()
    return split, skipped


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, sorted: the first few, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def class_names(folder: Path) -> tuple[str, ...]:
    """The folders in a folder, sorted by name; hidden ones are left out.

    Raises:
        DataError: for a name that is not UTF-8: runs, models and answers could not say it.
    """
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."))
    for name in names:
        if printable(name) != name:
            raise DataError(f"the folder {printable(name)} in {folder} has a name that is not UTF-8; rename it")
    return names


def printable(name: str) -> str:
    """A name of a file, with bytes that are not UTF-8 as \\xNN."""
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


def hash_images(
    images: list[LabelledImage], on_progress: Callable[[int, int], None] | None
) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images with the SHA-256 of their contents, and those that could not be read or cannot be named."""

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
            if isinstance(result, LabelledImage):
                hashed.append(result)
            else:
                skipped.append(result)
            if on_progress:
                on_progress(done, len(images))
    return hashed, skipped


def _hold_out(images: list[LabelledImage], classes: tuple[str, ...], fraction: float, seed: int) -> Split:
    """Per class, the images with the smallest seeded hashes of their contents are held out: at least one of them."""
    by_label: dict[int, dict[bytes, list[LabelledImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        by_label[image.label][hashlib.sha256(b"%d " % seed + image.sha256).digest()].append(image)
    held_out: set[Path] = set()
    for copies in by_label.values():
        if len(copies) < 2:
            continue  # the split's check then names the class
        count = min(max(round(len(copies) * fraction), 1), len(copies) - 1)
        for key in sorted(copies)[:count]:
            held_out.update(image.path for image in copies[key])
    return Split(
        classes,
        [image for image in images if image.path not in held_out],
        [image for image in images if image.path in held_out],
    )


def shared_images(split: Split) -> list[tuple[LabelledImage, LabelledImage]]:
    """Pairs of a training and a validation image with the same contents: they make validation look too good."""
    train = {image.sha256: image for image in split.train}
    return [(train[image.sha256], image) for image in split.valid if image.sha256 in train]
