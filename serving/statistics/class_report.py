"""Precision, recall, F1 and support of each class, and their averages, as scikit-learn's `classification_report`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.statistics.confusion import ConfusionMatrix


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class, or averages over classes, 0 to 1; what is undefined counts as 0."""

    name: str
    precision: float
    """Of the images predicted as the class, the proportion with that label."""
    recall: float
    """Of the images with the label, the proportion predicted as such."""
    f1: float
    """Harmonic mean of both."""
    support: int
    """Images with the label."""


@dataclass(frozen=True)
class ClassReport:
    """The scores of every class that has labels or predictions, and their averages."""

    classes: list[ClassScores]
    macro: ClassScores
    """Each class counts the same."""
    weighted: ClassScores
    """Each class counts by its support."""

    @property
    def averages(self) -> tuple[ClassScores, ClassScores]:
        return self.macro, self.weighted

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ClassReport":
        """What `to_json` gave.

        Raises:
            TypeError, KeyError: if it is something else.
        """
        classes = [ClassScores(**scores) for scores in fields["classes"]]
        return cls(classes, ClassScores(**fields["macro"]), ClassScores(**fields["weighted"]))


def class_report(confusion: ConfusionMatrix) -> ClassReport | None:
    """The scores of a confusion matrix; None if it is empty."""
    if not confusion.total:
        return None
    correct_K = confusion.counts_KK.diagonal().astype(np.float64)
    actual_K, predicted_K = confusion.actual_K, confusion.predicted_K
    present = np.flatnonzero(actual_K + predicted_K)
    scores_3K = np.stack(
        [_ratio(correct_K, predicted_K), _ratio(correct_K, actual_K), _ratio(2 * correct_K, actual_K + predicted_K)]
    )
    total = confusion.total

    def scores(name: str, three: NDArray[np.float64], support: int) -> ClassScores:
        precision, recall, f1 = map(float, three)
        return ClassScores(name, precision, recall, f1, support)

    return ClassReport(
        [scores(confusion.classes[k], scores_3K[:, k], int(actual_K[k])) for k in present],
        scores("macro average", scores_3K[:, present].mean(1), total),
        scores("weighted average", scores_3K[:, present] @ actual_K[present] / total, total),
    )


def _ratio(part_K: NDArray[np.float64], whole_K: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part_K, whole_K, out=np.zeros(len(part_K)), where=whole_K > 0)
