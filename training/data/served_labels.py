"""Labels that came back from serving, as images to train on.

`export-labels` writes a row for each label, with the reference that the client gave: the image's path below a folder.
These images join the training images, each once, with the weight of any other. None of them is held out for
validation, and none whose content is in the data folder already is added: neither a second copy of a training image
nor a validation image.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from serving.image.decode import Limits
from serving.system.csv_cells import unescape_formula
from serving.tokens.tokens import ReferenceInvalid, check_reference
from training.data.image_files import hash_images
from training.data.images import ImageSet, LabelledImage
from training.data.layout import DataError
from training.data.tables import read_table

MAX_EXAMPLES = 3
FIRST_ROW = 2
"""Number of the first row below the header, as spreadsheets count."""
HINT = "give a labels.csv that export-labels has written, or a CSV with the columns reference and label"
ADDED = "added to the training images"
NO_REFERENCE = "without a reference, so without an image"
CHANGED = "images with several labels: the latest is used"
UNKNOWN = "of classes that the data has not: left out"
MISSING = "not there: left out"
IN_DATA = "in the data folder already"
IN_VALID = "among the validation images: not trained on"
CONFLICT = "in the data folder as another class, which is kept: correct it there, or with --exclude"
COPIES = "copies of another labelled image"


@dataclass(frozen=True, slots=True)
class ServedLabel:
    """The label of one image."""

    label: str
    time: datetime
    """When it was recorded."""


@dataclass
class Outcomes:
    """How many labels were used, and why others were not."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, example: str = "") -> None:
        """Count one."""
        self.counts[what] += 1
        if example and len(self.examples[what]) < MAX_EXAMPLES:
            self.examples[what].append(example)

    def lines(self) -> Iterator[str]:
        """The lines to print."""
        for what, count in self.counts.items():
            found = self.examples.get(what, [])
            examples = f": {'; '.join(found)}{'; …' if count > len(found) else ''}" if found else ""
            yield f"{count:,} {what}{examples}"


@dataclass(frozen=True)
class ServedLabels:
    """The labels of a file that `export-labels` wrote."""

    file: Path
    sha256: str
    root: Path
    """The folder that references are paths below."""
    by_path: Mapping[str, ServedLabel]
    """The latest label of each image, by its path below the root."""
    outcomes: Outcomes

    def apply(
        self, images: ImageSet, limits: Limits, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[ImageSet, dict[str, Any], list[str]]:
        """Add the labelled images to the images to train on.

        Args:
            images: those of the data folder.
            limits: larger images are left out.
            on_progress: called with (files hashed, files in all).

        Returns:
            All images, a record for run.json, and lines that say what became of the labels.

        Raises:
            DataError: if there is no image for any of the labels.
        """
        outcomes = deepcopy(self.outcomes)
        found = [*self._found(images, limits, outcomes)]
        if not found:
            why = "; ".join(outcomes.lines()) or "the file has no rows"
            raise DataError(f"no label of {self.file} has an image below {self.root} to train on: {why}")
        hashed, unreadable = hash_images(found, on_progress)
        there = {image.sha256: (image, IN_DATA) for image in images.train}
        there |= {image.sha256: (image, IN_VALID) for image in images.valid or ()}
        added: dict[bytes, LabelledImage] = {}
        for image in sorted(hashed, key=lambda image: self._label(image).time, reverse=True):  # the latest first
            name = f"{self._name(image)} ({images.classes[image.label]})"
            if image.sha256 in there:
                known, part = there[image.sha256]
                same = known.label == image.label
                outcomes.add(part if same else CONFLICT, name if same else f"{name}, which is {known.path}")
            elif image.sha256 in added:
                outcomes.add(COPIES if added[image.sha256].label == image.label else CHANGED, name)
            else:
                added[image.sha256] = image
                outcomes.add(ADDED)
        train_only = sorted(added.values(), key=lambda image: image.path)
        record = {
            "file": str(self.file),
            "sha256": self.sha256,
            "images": str(self.root),
            "added": len(train_only),
            "outcomes": {
                what: {"count": n, "examples": outcomes.examples.get(what, [])} for what, n in outcomes.counts.items()
            },
        }
        changed = replace(images, train_only=train_only, skipped=[*images.skipped, *unreadable])
        return changed, record, [*outcomes.lines()]

    def _found(self, images: ImageSet, limits: Limits, outcomes: Outcomes) -> Iterator[LabelledImage]:
        """The images that there are, of classes that the data has; not yet hashed."""
        numbers = {name: number for number, name in enumerate(images.classes)}
        for path, label in self.by_path.items():
            if label.label not in numbers:
                outcomes.add(UNKNOWN, f"{path} ({label.label})")
            elif not _is_file(self.root / path):
                outcomes.add(MISSING, path)
            else:
                yield LabelledImage(self.root / path, numbers[label.label], limits=limits)

    def _name(self, image: LabelledImage) -> str:
        return image.path.relative_to(self.root).as_posix()

    def _label(self, image: LabelledImage) -> ServedLabel:
        return self.by_path[self._name(image)]


def read_served_labels(file: Path, root: Path) -> ServedLabels:
    """Read a file of labels. Of several labels of an image the latest counts.

    Args:
        file: as `export-labels` writes it, or any CSV with the columns `reference` and `label`; `labelled_at` decides
            which of two labels is later, and without it the order of the rows does.
        root: the folder of the images.

    Raises:
        DataError: if the file or the folder cannot be used, or a reference leads out of the folder; with its row.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that the references are paths below (--images)")
    root = root.resolve()
    table = read_table(file, ("reference", "label"), HINT)
    if table.rows and table.rows[0].keys() >= {"probability", "token"}:  # export-labels writes no tokens
        raise DataError(f"{file} is the output of predict, whose column label is the predicted class; {HINT}")
    outcomes = Outcomes()
    by_path: dict[str, ServedLabel] = {}
    for number, row in enumerate(table.rows, FIRST_ROW):
        reference = unescape_formula(row["reference"])
        where = f"{file}, row {number}"
        label = ServedLabel(normalize("NFC", row["label"]), _time(row.get("labelled_at", ""), where))
        if not reference:
            outcomes.add(NO_REFERENCE)
            continue
        path = _path_below(root, reference, where)
        earlier = by_path.get(path)
        if earlier is not None and earlier.label != label.label:
            outcomes.add(CHANGED, f"{path} ({earlier.label}, {label.label})")
        if earlier is None or label.time >= earlier.time:
            by_path[path] = label
    return ServedLabels(file, table.sha256, root, by_path, outcomes)


def _path_below(root: Path, reference: str, where: str) -> str:
    """A reference as a path below the root; raises DataError if it leads out of it."""
    try:
        check_reference(reference)
    except ReferenceInvalid as error:
        raise DataError(f"{where}: {error}") from error
    path = PurePosixPath(reference)
    problem = ""
    if path.is_absolute():
        problem = "is an absolute path"
    elif ".." in path.parts:
        problem = "has a .. in it"
    elif not Path(os.path.realpath(root / path)).is_relative_to(root):
        problem = "is a link that leads out of the folder"
    if problem:
        raise DataError(f"{where}: the reference {reference!r} {problem}; references must be paths below {root}")
    return path.as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the file system
        return False


def _time(text: str, where: str) -> datetime:
    """A time, the first of all if it is empty; raises DataError if it is malformed."""
    if not text:
        return datetime.min.replace(tzinfo=UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(
            f"{where}: labelled_at is {text!r:.60}; it must be a time such as 2026-11-01T00:00:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
