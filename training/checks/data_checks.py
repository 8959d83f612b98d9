"""Runs all checks of a data set on cached activations."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.comparison.proportions import wilson
from serving.image.folders import Skipped
from training.checks.duplicates import DuplicateGroup, find_duplicates
from training.checks.image_facts import image_facts
from training.checks.logistic import fit_logistic
from training.checks.projection import project
from training.checks.summary import Oddity, class_advice, find_oddities, kinds, size_table
from training.checks.suspects import OutOfFold, find_suspects
from training.console import Stopwatch, counted, progress
from training.data.images import LabelledImage, labels_of
from training.data.layout import path_below
from training.features.activations import Activations


@dataclass(frozen=True)
class DataChecks:
    """Results of the checks. Images are the training images, then the validation images."""

    data: Path
    """The folder that paths are relative to."""
    classes: tuple[str, ...]
    images: list[LabelledImage]
    train: int
    """How many of the images are for training."""
    facts_N: NDArray[np.void]
    out_of_fold: OutOfFold
    groups: list[DuplicateGroup]
    """Groups of near duplicates."""
    skipped: list[Skipped]
    correct_V: NDArray[np.bool_]
    """Whether a head fitted on the training images classifies each validation image correctly."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the activations separate the classes, so that suspects mean anything."""
        correct, judged = self.out_of_fold.accuracy(labels_of(self.images))
        largest = max(Counter(image.label for image in self.images).values())
        return judged > 0 and wilson(correct, judged).lower > largest / len(self.images)

    def part(self, index: int) -> str:
        """`train` or `valid`."""
        return "train" if index < self.train else "valid"

    def path(self, index: int) -> str:
        """An image's path in lists: below the data folder."""
        return path_below(self.images[index].path, self.data)

    def leaks(self) -> list[int]:
        """Validation images that are copies of a training image."""
        mixed = [group.members for group in self.groups if group.members[0] < self.train]
        return [at for members in mixed for at in members if at >= self.train]

    def contradictions(self) -> list[DuplicateGroup]:
        """Groups whose images have different labels."""
        return [group for group in self.groups if len({self.images[at].label for at in group.members}) > 1]

    def oddities(self) -> list[Oddity]:
        """Blank, dark, bright, blurred and small images."""
        return find_oddities(self.facts_N)

    def counts(self) -> NDArray[np.int64]:
        """Images by class and part, int64 `[K, 2]`: training, validation."""
        labels, size = labels_of(self.images), len(self.classes)
        parts = (labels[: self.train], labels[self.train :])
        return np.stack([np.bincount(part, minlength=size) for part in parts], 1)

    def advice(self) -> list[str]:
        """What to do about the classes' sizes."""
        return class_advice(self.counts()[:, 0].tolist(), self.classes)

    def to_json(self) -> dict[str, Any]:
        """The figures, without the lists of images."""
        correct, judged = self.out_of_fold.accuracy(labels_of(self.images))
        leaks = self.leaks()
        clean_V = ~np.isin(np.arange(self.train, len(self.images)), leaks)
        return {
            "images": {"train": self.train, "valid": len(self.images) - self.train, "left_out": len(self.skipped)},
            "out_of_fold": {"correct": correct, "judged": judged, "usable": self.usable},
            "suspects": len(self.out_of_fold.suspects) if self.usable else 0,
            "confident_suspects": sum(each.confident for each in self.out_of_fold.suspects) if self.usable else 0,
            "duplicate_groups": len(self.groups),
            "duplicates": sum(len(group.members) - 1 for group in self.groups),
            "groups_across_classes": len(self.contradictions()),
            "leaks": len(leaks),
            "validation_accuracy": _accuracy(self.correct_V),
            "validation_accuracy_without_leaks": _accuracy(self.correct_V[clean_V]),
            "oddities": {each.name: len(each.indices) for each in self.oddities()},
            "sizes": size_table(self.facts_N),
            "kinds": kinds(self.facts_N),
            "advice": self.advice(),
            "seconds": self.seconds,
        }


def _accuracy(correct: NDArray[np.bool_]) -> dict[str, int]:
    return {"correct": int(correct.sum()), "n": len(correct)}


def check_data(
    data: Path,
    classes: tuple[str, ...],
    train: Activations,
    valid: Activations,
    cache: Path,
    skipped: list[Skipped],
    *,
    seed: int,
) -> DataChecks:
    """Run all checks.

    Args:
        data: the folder that paths are relative to.
        train, valid: activations of a pretrained network.
        cache: the folder in which facts about images are kept.
        skipped: files that were left out.
    """
    watch = Stopwatch()
    images = train.images + valid.images
    labels_N, count = labels_of(images), len(train.images)
    with watch.stage("measure images"), progress("measuring images") as on_progress:
        facts_N = image_facts(images, cache, on_progress)
    with watch.stage("project activations"):
        projected_ND = project([train, valid])
    with watch.stage("near duplicates"), progress("near duplicates") as on_progress:
        groups = find_duplicates(images, projected_ND, facts_N["thumbnail"], on_progress)
    with watch.stage("label suspects"):
        members = [group.members for group in groups]
        out_of_fold = find_suspects(projected_ND, labels_N, len(classes), members, seed=seed)
    with watch.stage("accuracy without leaks"):
        head = fit_logistic(projected_ND[:count], labels_N[:count], len(classes))
        predicted = np.concatenate([block.argmax(1) for block in head.probabilities(projected_ND[count:])])
    correct_V = predicted == labels_N[count:]
    return DataChecks(data, classes, images, count, facts_N, out_of_fold, groups, skipped, correct_V, watch.seconds)


def describe_checks(checks: DataChecks) -> list[str]:
    """Results for the terminal."""
    facts = checks.to_json()
    if checks.usable:
        lines = [f"{counted(facts['suspects'], 'label suspect')}, {facts['confident_suspects']:,} of them confident"]
    else:
        judged = facts["out_of_fold"]
        lines = [
            f"labels cannot be checked: a head on these activations classifies {judged['correct']:,} of "
            f"{judged['judged']:,} images correctly, no more than the share of the largest class"
        ]
    lines.append(
        f"{counted(facts['duplicates'], 'near duplicate')} in {counted(facts['duplicate_groups'], 'group')}, "
        f"{facts['groups_across_classes']:,} of them across classes"
    )
    if facts["leaks"]:
        whole, clean = facts["validation_accuracy"], facts["validation_accuracy_without_leaks"]
        lines.append(
            f"warning: {counted(facts['leaks'], 'validation image')} with a copy among the training images; a logistic "
            "head classifies "
            f"{whole['correct']:,} of {whole['n']:,} validation images correctly with them, {clean['correct']:,} of "
            f"{clean['n']:,} without"
        )
    if odd := [f"{count:,} {name}" for name, count in facts["oddities"].items() if count]:
        lines.append(f"images that stand out: {', '.join(odd)}")
    return [*lines, *facts["advice"]]
