"""The layout of a data folder: which of its folders are splits, and which are classes.

Read are `train/CLASS/*` with `valid/CLASS/*`, and `CLASS/*`. Splits are known by the words that public data sets use,
in any case and with any prefix or suffix (`Train`, `val2017`, `seg_train`, `dev-images`); they must hold folders, so
that a class of trains stays a class.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serving.image.folders import Listing, Skipped, describe_skipped, list_folder, own_output, printable

TRAIN, VALID, TEST = "train", "valid", "test"
SPLIT_WORDS = {
    TRAIN: {"train", "training", "trn", "trainval", "learn", "learning"},
    VALID: {"valid", "validation", "validate", "val", "dev", "development", "eval", "evaluation", "holdout"},
    TEST: {"test", "testing", "tst", "pred", "predict", "prediction", "unlabeled", "unlabelled"},
}
LAYOUTS = "a folder for each class (CLASS/*), or train/CLASS/* and valid/CLASS/*"
MAX_LISTED = 10
"""Names in a message."""
_GLUED = re.compile(r"(?<=.)(sets?|data|dataset|images?|imgs?|folder|split)$")
_WRAPPERS = {"images", "image", "imgs", "data"}
"""Names of a folder that holds the classes of a split."""


class DataError(ValueError):
    """A data set that cannot be used; the message says why and what is needed."""


@dataclass(frozen=True)
class Layout:
    """Where the images of each class are."""

    train: dict[str, list[Path]]
    """Folders by class, sorted by class."""
    valid: dict[str, list[Path]] | None = None
    """The same classes; None if a part of the training images is to be held out."""
    notes: tuple[str, ...] = ()
    """Notes for the user: how the folders were understood."""
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.train)


def find_layout(data: Path, targets: Collection[Path] = ()) -> Layout:
    """Find the splits and classes of a folder.

    Args:
        targets: folders that the command writes: they hold no images. Absolute paths.

    Raises:
        DataError: for a folder of another layout.
    """
    _check_folder(data)
    top = list_folder(data, targets)
    inside = {folder: list_folder(folder, targets) for folder in top.folders}
    splits = {part: [each for each in top.folders if split_of(each.name) == part] for part in SPLIT_WORDS}
    train, valid = (_only([each for each in splits[part] if inside[each].folders], part) for part in (TRAIN, VALID))
    if train is None:
        _check_classes(data, top, inside, valid)
        classes, loose = _classes(top)
        return Layout(classes, skipped=loose)
    others = [each for each in top.folders if each not in (train, valid)]
    notes: list[str] = []
    names = _class_set(train, targets)
    if valid is None:
        _check_beside_train(data, train, [each for each in others if each not in splits[TEST]], inside)
        valid = _only(
            [each for each in splits[TEST] if inside[each].folders and _class_set(each, targets) == names], TEST
        )
        if valid is not None:
            others.remove(valid)
            notes.append(f"validation images: those of {valid}, as there is no folder {VALID}")
        else:
            notes.append(f"there is no folder {VALID}: a part of each class in {train} is held out")
    parts = [_classes(_unwrapped(each, targets)) for each in (train, valid) if each is not None]
    skipped = [each for _, loose in parts for each in loose]
    for each in others:
        if each not in splits[TEST]:
            reason = "lies beside the splits; it is neither training nor validation"
        elif names.isdisjoint(_class_set(each, targets)):
            reason = "a test folder without classes, which cannot be trained or validated on"
        else:
            reason = "a test folder; evaluate a run on it with python -m training evaluate"
        skipped.append(Skipped(each, reason))
    skipped += [Skipped(each, "lies beside the splits") for each in top.files] + top.skipped
    if valid is None:
        return Layout(parts[0][0], None, tuple(notes), skipped)
    of_train, of_valid = (folders for folders, _ in parts)
    if of_train.keys() != of_valid.keys():
        raise DataError(
            f"{train} and {valid} have different classes: only in {train.name}: "
            f"{listed(of_train.keys() - of_valid.keys())}; only in {valid.name}: "
            f"{listed(of_valid.keys() - of_train.keys())}. Every class needs a folder in both"
        )
    return Layout(of_train, of_valid, tuple(notes), skipped)


def evaluation_folders(data: Path, classes: Collection[str]) -> tuple[dict[str, list[Path]], list[Skipped]]:
    """The folders of labelled images to evaluate on, by class, and what is left out.

    Args:
        classes: those of the run. Folders with these names are classes, even if one is called `test`.

    Raises:
        DataError: for a folder of another layout.
    """
    _check_folder(data)
    folders, loose = class_folders(data)
    if not folders or not set(folders) <= set(classes):
        if (only := _split_without_training(data)) is not None:
            return only
        layout = find_layout(data)
        if layout.valid is not None:
            return layout.valid, layout.skipped
        if layout.notes:
            raise DataError(
                f"{data} has a folder to train on but none with the same classes to evaluate on; to evaluate on "
                f"{TRAIN}, give {data / TRAIN}"
            )
    return folders, loose


def _split_without_training(data: Path) -> tuple[dict[str, list[Path]], list[Skipped]] | None:
    """The classes of a validation or test split that has no training split beside it; None if there is none."""
    listing = list_folder(data)
    splits = {
        part: [each for each in listing.folders if split_of(each.name) == part and list_folder(each).folders]
        for part in SPLIT_WORDS
    }
    only = None if splits[TRAIN] else _only(splits[VALID], VALID) or _only(splits[TEST], TEST)
    if only is None:
        return None
    classes, loose = _classes(_unwrapped(only, ()))
    beside = [each for each in (*listing.folders, *listing.files) if each != only]
    return classes, loose + [Skipped(each, f"lies beside {only.name}") for each in beside] + listing.skipped


def class_folders(folder: Path) -> tuple[dict[str, list[Path]], list[Skipped]]:
    """The folders in a folder, by class, and what else is in it.

    Raises:
        DataError: for a name that is not UTF-8.
    """
    return _classes(list_folder(folder))


def _check_folder(data: Path) -> None:
    """Raise DataError unless images can be looked for below a path."""
    if printable(str(data)) != str(data):
        raise DataError(f"the path {printable(str(data))} is not UTF-8; rename the folder")
    if not data.is_dir():
        raise DataError(f"{data} is not a folder; give one with {LAYOUTS}")
    if output := own_output(data, depth=0):
        raise DataError(f"{data} holds {output}, not images; give a folder with {LAYOUTS}")


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: TRAIN, VALID, TEST or, if it is no such name, None."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = {_GLUED.sub("", word) for word in re.findall(r"[a-z]+", spaced)}
    found = {part for part, known in SPLIT_WORDS.items() if words & known}
    if found == {TRAIN, VALID}:  # train_val, as trainval
        return TRAIN
    return found.pop() if len(found) == 1 else None


def listed(names: Iterable[str], most: int = MAX_LISTED) -> str:
    """Names for a message, sorted: the first few, and how many more there are. Those with a comma are quoted."""
    names = [f"'{name}'" if "," in name else name for name in sorted(names)]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def path_below(path: Path, data: Path) -> str:
    """An image's name in lists: its path below the data folder, or its whole path if it is elsewhere."""
    return (path.relative_to(data) if path.is_relative_to(data) else path).as_posix()


def _only(folders: Sequence[Path], part: str) -> Path | None:
    """The one folder of a split: the one with the plainest name, if there are several."""
    if len(folders) > 1:
        folders = [each for each in folders if each.name.lower() in SPLIT_WORDS[part]] or folders
    if len(folders) > 1:
        raise DataError(
            f"{folders[0].parent} has {len(folders)} folders for one split: {listed(each.name for each in folders)}; "
            f"name the one to use {part}, and move the others away"
        )
    return folders[0] if folders else None


def _classes(listing: Listing) -> tuple[dict[str, list[Path]], list[Skipped]]:
    """The folders by class; names that differ only in how accents are encoded (NFC, NFD) are one class."""
    classes: dict[str, list[Path]] = {}
    for folder in listing.folders:
        if printable(folder.name) != folder.name:
            raise DataError(
                f"the folder {printable(folder.name)} in {folder.parent} has a name that is not UTF-8; rename it"
            )
        classes.setdefault(unicodedata.normalize("NFC", folder.name), []).append(folder)
    loose = [Skipped(each, "lies beside the folders of classes, so it has no class") for each in listing.files]
    return dict(sorted(classes.items())), loose + listing.skipped


def _class_set(split: Path, targets: Collection[Path]) -> set[str]:
    return set(_classes(_unwrapped(split, targets))[0])


def _unwrapped(split: Path, targets: Collection[Path]) -> Listing:
    """The content of a split; of `seg_train/seg_train/CLASS` or `train/images/CLASS`, that of the inner folder."""
    listing = list_folder(split, targets)
    if len(listing.folders) == 1 and not listing.files:
        inner = listing.folders[0]
        if split_of(inner.name) == split_of(split.name) or inner.name.lower() in _WRAPPERS:
            below = list_folder(inner, targets)
            if below.folders:
                return below
    return listing


def _check_classes(data: Path, top: Listing, inside: dict[Path, Listing], valid: Path | None) -> None:
    """Check that the folders can be classes, where none of them is a training split."""
    names = listed(each.name for each in top.folders)
    if valid is not None:
        raise DataError(
            f"{data} has a folder {valid.name} but no folder {TRAIN}; have both, or only folders of classes. There are "
            f"{names}"
        )
    if not top.folders:
        there = f"{len(top.files):,} files and no folders" if top.files else "no images"
        reasons = "".join(f"\n{line}" for line in describe_skipped(top.skipped))
        raise DataError(f"{data} holds {there}; the layouts that are read: {LAYOUTS}{reasons}")
    if len(top.folders) > 1 and all(split_of(each.name) for each in top.folders):
        raise DataError(
            f"{data} has the folders {names}, which are names of splits, not of classes, and they hold no folders of "
            f"classes; the layouts that are read: {LAYOUTS}"
        )
    below = [{each.name for each in listing.folders} for listing in inside.values() if not listing.files]
    if not below or len(below) < len(inside) or len(below[0]) < 2 or any(each != below[0] for each in below):
        return
    if len(below) == 1:
        raise DataError(
            f"{data} holds only the folder {names}, which holds {listed(below[0])}: give {top.folders[0]} as the data"
        )
    if any(split_of(name) == TRAIN for name in below[0]):
        raise DataError(
            f"the folders {names} in {data} hold the splits {listed(below[0])}; the layouts that are read: {LAYOUTS}"
        )
    raise DataError(
        f"the folders {names} in {data} hold the same folders ({listed(below[0])}) and no images, as splits do: name "
        f"them {TRAIN} and {VALID}; if they are classes, put the images of each into its folder directly"
    )


def _check_beside_train(data: Path, train: Path, others: Sequence[Path], inside: dict[Path, Listing]) -> None:
    """Check the folders beside a training split that has no validation split."""
    classes = {each.name for each in inside[train].folders}
    if alike := [each.name for each in others if classes & {inner.name for inner in inside[each].folders}]:
        raise DataError(
            f"{data} has a folder {train.name} but no folder {VALID}, and {listed(alike)} with the same classes: name "
            f"the one with the validation images {VALID}"
        )
    if flat := [each.name for each in others if inside[each].files]:
        raise DataError(
            f"{data} has a folder {train.name}, which holds folders as a split does, and {listed(flat)}, which hold "
            f"files as classes do; have {LAYOUTS}"
        )
