"""The statistics of one model version, made from its counts in the database."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.bundle.model_version import ModelVersion
from serving.statistics.calibration import Bin, to_bins
from serving.statistics.confusion import ConfusionMatrix
from serving.statistics.queries import OutcomeCount


@dataclass(frozen=True)
class VersionStatistics:
    """The predictions of one model version, compared with their labels."""

    version: ModelVersion
    classes: tuple[str, ...]
    confusion: ConfusionMatrix
    """Labelled predictions; each is counted once, with its latest label."""
    predictions: int
    """How many predictions were made, labelled or not."""
    last_label_ms: int | None
    """When the newest label was recorded, in Unix milliseconds; None if there is none."""
    calibration: tuple[Bin, ...]
    """Probability and accuracy of the labelled predictions."""


def version_statistics(
    version: ModelVersion,
    classes: tuple[str, ...] | None,
    predictions: int,
    outcomes: Sequence[OutcomeCount],
    last_label_ms: int | None,
) -> VersionStatistics:
    """The statistics of one version, from its counts; `classes` are those that it was registered with."""
    assert classes is not None  # a foreign key guarantees it
    counts_KK = np.zeros((len(classes), len(classes)), np.int64)
    for each in outcomes:
        counts_KK[each.actual, each.predicted] += each.count
    counts_KK.setflags(write=False)  # so that the matrix need not copy it
    confusion = ConfusionMatrix(classes, counts_KK)
    tallies = (
        (each.calibration_bin, each.count, each.count * (each.actual == each.predicted), each.probability_sum)
        for each in outcomes
    )
    # a killed process loses its last counts, but every labelled prediction was made
    predictions = max(predictions, confusion.total)
    return VersionStatistics(version, classes, confusion, predictions, last_label_ms, to_bins(tallies))
