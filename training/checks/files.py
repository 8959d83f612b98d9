"""suspects.csv and duplicates.csv."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from serving.system.files import write_atomically
from training.checks.data_checks import DataChecks
from training.console import say

SUSPECTS_FILE, DUPLICATES_FILE = "suspects.csv", "duplicates.csv"
SUSPECT_COLUMNS = ("path", "part", "label", "suggested", "p_label", "p_suggested", "confident", "corrected")
DUPLICATE_COLUMNS = ("group", "path", "part", "label", "leak", "classes", "similarity", "width", "height", "bytes")


def write_lists(checks: DataChecks, folder: Path) -> None:
    """Write both files; earlier ones that differ are kept as NAME.previous, as a person may have edited them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((SUSPECTS_FILE, suspects_csv(checks)), (DUPLICATES_FILE, duplicates_csv(checks))):
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode():
            path.replace(path.with_name(f"{name}.previous"))
            say(f"the earlier {path} is kept as {name}.previous")
        write_atomically(path, text)


def suspects_csv(checks: DataChecks) -> str:
    """The suspects, most probable first; `corrected` is empty, for a person to fill in. None if they mean nothing."""
    rows = [
        (
            checks.path(each.index),
            checks.part(each.index),
            checks.classes[checks.images[each.index].label],
            checks.classes[each.suggested],
            f"{each.p_label:.4f}",
            f"{each.p_suggested:.4f}",
            "yes" if each.confident else "no",
            "",
        )
        for each in (checks.out_of_fold.suspects if checks.usable else ())
    ]
    return _csv(SUSPECT_COLUMNS, rows)


def duplicates_csv(checks: DataChecks) -> str:
    """The images of each group; `leak`: a validation image whose copy is trained on; `classes`: one or several."""
    leaks, contradictions = set(checks.leaks()), checks.contradictions()
    rows = []
    for number, group in enumerate(checks.groups, 1):
        for at in group.members:
            rows.append(
                (
                    str(number),
                    checks.path(at),
                    checks.part(at),
                    checks.classes[checks.images[at].label],
                    "yes" if at in leaks else "no",
                    "several" if group in contradictions else "one",
                    f"{group.similarity:.4f}",
                    *(str(checks.facts_N[at][name]) for name in ("width", "height", "bytes")),
                )
            )
    return _csv(DUPLICATE_COLUMNS, rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
