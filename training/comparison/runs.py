"""Compares runs with the first of them, image by image."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.comparison.paired import compare_pairs
from serving.comparison.proportions import Interval
from serving.comparison.results import Comparison
from training.data.images import LabelledImage
from training.data.layout import path_below
from training.evaluation.metrics import mean_interval, nll_of
from training.fitting.history import read_history
from training.fitting.loop import EpochResult
from training.recipes.recipe import Recipe
from training.runs.run import RECIPE_FILE, Run, RunError, open_run
from training.tracking.tracker import flattened


@dataclass(frozen=True)
class ComparedRun:
    """A run with what is compared of it."""

    name: str
    """Its folder's name, or its path where two have the same name."""
    run: Run
    recipe: dict[str, Any]
    history: list[EpochResult]
    images: list[LabelledImage]
    """Validation images."""
    probabilities_NK: NDArray[np.float32]

    @cached_property
    def labels(self) -> list[str]:
        """The class of each image."""
        return [self.run.classes[image.label] for image in self.images]

    @cached_property
    def predicted(self) -> list[str]:
        """The most probable class of each image."""
        return [self.run.classes[k] for k in np.nanargmax(self.probabilities_NK, 1)]

    @cached_property
    def correct(self) -> list[bool]:
        """Whether each image is classified correctly."""
        return [a == b for a, b in zip(self.predicted, self.labels, strict=True)]


@dataclass(frozen=True)
class Pair:
    """Two runs on the validation images that both have with the same label."""

    first: ComparedRun
    second: ComparedRun
    rows_N2: NDArray[np.int64]
    """Row of each shared image in the first run and in the second."""
    relabelled: int
    """Shared images with another label in the second run, which are not compared."""
    comparison: Comparison
    nll_change: Interval | None
    """Mean change of an image's negative log likelihood with its bootstrap interval; None if some are not known."""

    @property
    def same_images(self) -> bool:
        """Whether both were validated on the same images with the same labels."""
        return len(self.rows_N2) == len(self.first.images) == len(self.second.images)

    def changed(self, *, fixed: bool) -> list[tuple[int, int]]:
        """The rows of the images that only the second run (fixed) or only the first classifies correctly.

        The ones of which the run that is correct is most certain come first.
        """
        before, after = self.first.correct, self.second.correct
        found = [(int(a), int(b)) for a, b in self.rows_N2 if (before[a], after[b]) == (not fixed, fixed)]
        certain_N = np.nanmax((self.second if fixed else self.first).probabilities_NK, 1)
        return sorted(found, key=lambda rows: -float(certain_N[rows[int(fixed)]]))

    def to_json(self) -> dict[str, Any]:
        comparison = asdict(self.comparison)
        del comparison["sequential"], comparison["labels_needed"]  # of labels that arrive one by one
        return {
            "run": self.second.name,
            "against": self.first.name,
            "shared_images": len(self.rows_N2),
            "relabelled": self.relabelled,
            "same_images": self.same_images,
            **comparison,
            "nll_change": self.nll_change and asdict(self.nll_change),
        }


def open_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read finished runs.

    Raises:
        RunError, ValueError: if a folder is none, or a part of it is missing.
    """
    names = [folder.resolve().name for folder in folders]
    return [
        _open(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _open(folder: Path, name: str) -> ComparedRun:
    run = open_run(folder)
    images, probabilities_NK = run.validation()
    return ComparedRun(
        name, run, Recipe.load(folder / RECIPE_FILE).as_fields(), read_history(folder), images, probabilities_NK
    )


def compare_runs(runs: Sequence[ComparedRun]) -> list[Pair]:
    """Compare each run with the first.

    Raises:
        RunError: if two runs share no validation image with the same label.
    """
    return [_compare(runs[0], other) for other in runs[1:]]


def _compare(first: ComparedRun, second: ComparedRun) -> Pair:
    matched = match_images(first, second)
    rows = [(a, b) for a, b in matched if first.labels[a] == second.labels[b]]
    if not rows:
        raise RunError(
            f"{first.name} and {second.name} share no validation image with the same label, so they cannot be compared "
            "image by image: evaluate both on the same images, with python -m training evaluate --run RUN --data DIR"
        )
    rows_N2 = np.array(rows, np.int64)
    classes = sorted({first.labels[a] for a, _ in rows})
    counts_K22 = np.zeros((len(classes), 2, 2), np.int64)
    number = {name: k for k, name in enumerate(classes)}
    for a, b in rows:
        counts_K22[number[first.labels[a]], int(first.correct[a]), int(second.correct[b])] += 1
    return Pair(
        first,
        second,
        rows_N2,
        len(matched) - len(rows),
        compare_pairs(classes, counts_K22),
        _nll_change(first, second, rows_N2),
    )


def match_images(first: ComparedRun, second: ComparedRun) -> list[tuple[int, int]]:
    """The rows of the images that both runs have: by path below the data folder and content, then by content alone.

    An image whose path differs, since a folder has moved, is found by its content; of several copies, each is matched
    once.
    """
    by_key: dict[tuple[str, bytes], int] = {}
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(second.images):
        by_key[path_below(image.path, second.run.data), image.sha256] = row
        by_content[image.sha256].append(row)
    same = [by_key.get((path_below(image.path, first.run.data), image.sha256)) for image in first.images]
    taken = set(same)
    left = {content: [row for row in rows if row not in taken] for content, rows in by_content.items()}
    matched = []
    for row, (image, found) in enumerate(zip(first.images, same, strict=True)):
        if found is None and left.get(image.sha256):
            found = left[image.sha256].pop(0)
        if found is not None:
            matched.append((row, found))
    return matched


def _nll_change(first: ComparedRun, second: ComparedRun, rows_N2: NDArray[np.int64]) -> Interval | None:
    before_N, after_N = (
        nll_of(each.probabilities_NK[rows_N], np.array([each.images[row].label for row in rows_N]))
        for each, rows_N in zip((first, second), rows_N2.T, strict=True)
    )
    change_N = after_N - before_N
    return mean_interval(change_N) if np.isfinite(change_N).all() else None


def setting_rows(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """The settings and facts in which the runs differ: name, then the value in each run."""
    flat = [_settings(each) for each in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = [[name, *(settings.get(name, "") for settings in flat)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _settings(run: ComparedRun) -> dict[str, str]:
    facts, data = run.run.facts, run.run.facts["data"]
    fingerprints = facts.get("fingerprints", {})
    return {
        **{name: str(value) for name, value in flattened(run.recipe).items()},
        "classes": f"{len(run.run.classes):,}",
        "training images": f"{data.get('train', 0):,}",
        "validation images": f"{data.get('valid', 0):,}",
        "data (fingerprint)": str(fingerprints.get("data", ""))[:12],
        "pretrained weights (fingerprint)": str(fingerprints.get("pretrained", ""))[:12],
        "images left out by lists": str((data.get("exclusions") or {}).get("excluded", 0)),
        "images relabelled by lists": str((data.get("exclusions") or {}).get("relabelled", 0)),
        "hardware": str(facts.get("hardware", "")),
    }
