"""Comparing two versions of a model by their labels: on the same images if there are any, else on different ones."""

from dataclasses import dataclass

import numpy as np

from serving.bundle.model_version import ModelVersion
from serving.comparison.paired import compare_pairs
from serving.comparison.results import Comparison
from serving.comparison.unpaired import compare_groups
from serving.statistics.store import Pairs, StatisticsStore, VersionStatistics, Window

NO_PAIRS = (
    "no labelled image was classified by both versions, so each is compared on its own images: if those differ, in "
    "time or source, the accuracies differ for that reason alone. Let one version be the shadow of the other (serve "
    "--shadow NAME/VERSION) to compare them on the same images"
)


@dataclass(frozen=True)
class VersionComparison:
    """Two versions of a model compared."""

    first: ModelVersion
    second: ModelVersion
    result: Comparison
    not_comparable: int
    """Images that both classified whose label is a class of only one of them."""
    warnings: tuple[str, ...]


def compare_versions(
    store: StatisticsStore, first: ModelVersion, second: ModelVersion, window: Window
) -> VersionComparison:
    """Compare two versions of one model.

    Pairs are the images that one of them answered and the other classified as its shadow, whichever it was.

    Raises:
        WindowExpired: if labels of the window have been deleted.
        StatisticsUnavailable: if the statistics cannot be read.
    """
    classes = store.classes_of(first) or ()
    counts_K22 = np.zeros((len(classes), 2, 2), np.int64)
    not_comparable = 0
    for answered, shadow in ((first, second), (second, first)):
        if store.classes_of(answered) is None:
            continue
        pairs = store.read_pairs(answered.name, answered.version, shadow.version, window)
        not_comparable += pairs.not_comparable
        counts_K22 += _of_classes(pairs, classes, swapped=answered == second)
    warnings = []
    if not_comparable:
        warnings.append(
            f"{not_comparable:,} images have a label that is a class of only one of the two versions; they are left out"
        )
    if counts_K22.sum():
        result = compare_pairs(classes, counts_K22)
    else:
        warnings.append(NO_PAIRS)
        result = _compare_apart(store, first, second, window)
    return VersionComparison(first, second, result, not_comparable, tuple(warnings))


def _of_classes(pairs: Pairs, classes: tuple[str, ...], *, swapped: bool) -> np.ndarray:
    """The counts of pairs by these classes; if swapped, as if the shadow had answered."""
    if not swapped:
        return pairs.counts_K22
    index_of = {name: index for index, name in enumerate(classes)}
    counts_K22 = np.zeros((len(classes), 2, 2), np.int64)
    for index in np.flatnonzero(pairs.counts_K22.any(axis=(1, 2))).tolist():
        counts_K22[index_of[pairs.classes[index]]] = pairs.counts_K22[index].T
    return counts_K22


def _compare_apart(store: StatisticsStore, first: ModelVersion, second: ModelVersion, window: Window) -> Comparison:
    read = [store.read(each.name, each.version, window) for each in (first, second)]
    classes = tuple(dict.fromkeys((store.classes_of(first) or ()) + (store.classes_of(second) or ())))
    columns = [column for found in read for column in _recalls(found, classes)]
    return compare_groups(classes, *columns)


def _recalls(found: list[VersionStatistics], classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Correct predictions and labels by class: int64 `[K]` each."""
    correct_K, labels_K = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    for statistics in found:  # at most one
        confusion = statistics.confusion
        index_of = {name: index for index, name in enumerate(classes)}
        places = [index_of[name] for name in confusion.classes]
        correct_K[places], labels_K[places] = confusion.counts_KK.diagonal(), confusion.actual_K
    return correct_K, labels_K
