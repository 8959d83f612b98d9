"""Files to leave out or to relabel, from a list that a person has edited; nothing on the disk is changed.

The list is `suspects.csv` or any other CSV with a column `path`. A row excludes its image; if its column `corrected`
names a class, the image keeps its place with that label instead. Rows that a person has deleted change nothing.
"""

from collections import Counter
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

    def apply(self, images: ImageSet, data: Path) -> tuple[ImageSet, dict[str, Any]]:
        """The images without those that are excluded, and a record for run.json.

        Raises:
            DataError: for a path or a class that the data has not.
        """
        names = ", ".join(self.files)
        left_out = {path_below(each.path, data) for each in images.skipped}
        known: set[str] = set()
        counts: Counter[str] = Counter()

        def kept(part: Sequence[LabelledImage]) -> list[LabelledImage]:
            result = []
            for image in part:
                path = path_below(image.path, data)
                if path not in self.corrected:
                    result.append(image)
                    continue
                known.add(path)
                if (name := self.corrected[path]) == "":
                    counts["excluded"] += 1
                else:
                    label = images.classes.index(name)
                    counts["relabelled"] += label != image.label
                    result.append(replace(image, label=label))
            return result

        if unknown := set(self.corrected.values()) - {"", *images.classes}:
            raise DataError(
                f"{names}: corrected names classes that the data has not: {listed(unknown)}; there are "
                f"{listed(images.classes)}"
            )
        changed = replace(
            images,
            train=kept(images.train),
            valid=None if images.valid is None else kept(images.valid),
            train_only=kept(images.train_only),
        )
        if missing := sorted(set(self.corrected) - known - left_out):
            raise DataError(
                f"{names}: {len(missing):,} paths are not images of {data}, such as "
                f"{', '.join(missing[:MAX_NAMED])}; paths are relative to the folder that was checked"
            )
        return changed, {"lists": self.files, "excluded": counts["excluded"], "relabelled": counts["relabelled"]}


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
