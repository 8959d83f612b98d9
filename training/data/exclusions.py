"""Files to leave out or to relabel, from a list that a person has edited; nothing on the disk is changed.

The list is `suspects.csv` or any other CSV with a column `path`. A row excludes its image; if its column `corrected`
names a class, the image keeps its place with that label instead. Rows that a person has deleted change nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data.images import ImageSet, LabelledImage
from training.data.layout import DataError, listed, path_below
from training.data.tables import read_table

MAX_NAMED = 3


@dataclass(frozen=True)
class Exclusions:
    """Images to leave out and to relabel."""

    files: dict[str, str]
    """Each list and its SHA-256."""
    corrected: dict[str, str]
    """Path below the data folder -> class, or an empty text to leave the image out."""

    def apply(self, images: ImageSet, data: Path) -> ImageSet:
        """The images without those that are excluded, with the corrected labels.

        Raises:
            DataError: for a class that the data has not.
        """
        if unknown := set(self.corrected.values()) - {"", *images.classes}:
            raise DataError(
                f"{', '.join(self.files)}: corrected names classes that the data has not: {listed(unknown)}; there are "
                f"{listed(images.classes)}"
            )

        def kept(part: Sequence[LabelledImage]) -> list[LabelledImage]:
            named = [(image, self.corrected.get(path_below(image.path, data))) for image in part]
            return [
                image if name is None else replace(image, label=images.classes.index(name))
                for image, name in named
                if name != ""
            ]

        return replace(
            images,
            train=kept(images.train),
            valid=None if images.valid is None else kept(images.valid),
            train_only=kept(images.train_only),
        )

    def record(self, images: ImageSet, data: Path) -> dict[str, Any]:
        """What `apply` does to these images, for run.json.

        Raises:
            DataError: for a path that is not of one of them.
        """
        everything = [*images.train, *(images.valid or ()), *images.train_only]
        names = {path_below(image.path, data): images.classes[image.label] for image in everything}
        left_out = {path_below(each.path, data) for each in images.skipped}
        if missing := sorted(self.corrected.keys() - names.keys() - left_out):
            raise DataError(
                f"{', '.join(self.files)}: {len(missing):,} paths are not images of {data}, such as "
                f"{', '.join(missing[:MAX_NAMED])}; paths are relative to the folder that was checked"
            )
        changed = [new for path, new in self.corrected.items() if path in names and new != names[path]]
        excluded = changed.count("")
        return {"lists": self.files, "excluded": excluded, "relabelled": len(changed) - excluded}


def read_exclusions(paths: Collection[Path]) -> Exclusions:
    """Read the lists, as spreadsheets write them.

    Raises:
        DataError: if one cannot be read, has no column `path`, or two rows disagree about an image.
    """
    files: dict[str, str] = {}
    corrected: dict[str, str] = {}
    for path in paths:
        table = read_table(path, ("path",), "give a suspects.csv that check has written")
        files[str(path)] = table.sha256
        for row in table.rows:
            name = row["path"].strip()
            if not name:
                continue
            word = row.get("corrected", "").strip()
            if corrected.setdefault(name, word) != word:
                raise DataError(f"{path}: two rows disagree about {name}: {corrected[name]!r} and {word!r}")
    return Exclusions(files, corrected)
