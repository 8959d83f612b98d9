"""The confusion matrix of predictions against labels, and its rates with confidence intervals. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import copysign, sqrt

import numpy as np
from numpy.typing import NDArray

from serving.comparison.proportions import Rate, wilson

MAX_TOTAL = 2**62
"""Limit of the sum of a matrix, so that no int64 sum of its counts can overflow."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How often each class was predicted for each actual class.

    Raises:
        ValueError: if the counts are not one non-negative integer for each pair of classes.
    """

    classes: tuple[str, ...]
    """Class names; the position is the index of the row and of the column."""
    counts_KK: NDArray[np.int64]
    """int64 `[K, K]`, read-only: [actual, predicted]. A writable array is copied."""

    def __post_init__(self) -> None:
        counts_KK = np.asarray(self.counts_KK)
        shape = (len(self.classes), len(self.classes))
        if counts_KK.shape != shape or not self.classes:
            raise ValueError(
                f"counts have shape {list(counts_KK.shape)}; {len(self.classes)} classes need one row and one "
                f"column each: {list(shape)}, at least [1, 1]"
            )
        if counts_KK.dtype.kind not in "iu":
            raise ValueError(f"counts are {counts_KK.dtype}; counts are integers")
        if counts_KK.min() < 0:
            actual, predicted = np.unravel_index(int(counts_KK.argmin()), shape)
            raise ValueError(f"counts[{actual}, {predicted}] is {counts_KK.min()}; counts are at least 0")
        if counts_KK.sum(dtype=np.float64) >= MAX_TOTAL:
            raise ValueError("counts sum to 2^62 or more, which 64-bit sums cannot hold")
        if counts_KK.dtype != np.int64 or counts_KK.flags.writeable or not counts_KK.flags.owndata:
            counts_KK = counts_KK.astype(np.int64)
            counts_KK.setflags(write=False)
        object.__setattr__(self, "counts_KK", counts_KK)

    @classmethod
    def from_pairs(
        cls,
        classes: tuple[str, ...],
        actual_indices: Sequence[int] | NDArray[np.integer],
        predicted_indices: Sequence[int] | NDArray[np.integer],
    ) -> "ConfusionMatrix":
        """Count pairs of class indices.

        Args:
            classes: class names in index order, K of them.
            actual_indices: integers `[N]`, 0 to K - 1: the labels.
            predicted_indices: integers `[N]`, 0 to K - 1: the predictions.

        Raises:
            ValueError: if the lengths differ, or an index is out of range.
        """
        actual_N = _indices(actual_indices, "actual_indices", len(classes))
        predicted_N = _indices(predicted_indices, "predicted_indices", len(classes))
        if len(actual_N) != len(predicted_N):
            raise ValueError(
                f"{len(actual_N)} actual_indices and {len(predicted_N)} predicted_indices; each case needs one of each"
            )
        # zeros and add.at touch only the pages with counts; bincount would write all K * K entries
        counts_KK = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts_KK.reshape(-1), actual_N * len(classes) + predicted_N, 1)
        counts_KK.setflags(write=False)
        return cls(classes, counts_KK)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        return self.classes == other.classes and np.array_equal(self.counts_KK, other.counts_KK)

    @cached_property
    def actual_K(self) -> NDArray[np.int64]:
        """int64 `[K]`: how many cases have each label."""
        return np.asarray(self.counts_KK.sum(axis=1))

    @cached_property
    def predicted_K(self) -> NDArray[np.int64]:
        """int64 `[K]`: how many cases have each prediction."""
        return np.asarray(self.counts_KK.sum(axis=0))

    @property
    def total(self) -> int:
        """The number of cases."""
        return int(self.actual_K.sum())

    @property
    def correct(self) -> int:
        """The number of correct predictions."""
        return int(self.counts_KK.trace())

    def accuracy(self) -> Rate | None:
        """Proportion of correct predictions; None without cases."""
        return _rate(self.correct, self.total)

    def precision(self, k: int) -> Rate | None:
        """Of the cases predicted as class k, the proportion with that label; None if it was never predicted."""
        return _rate(self.counts_KK[k, k], self.predicted_K[k])

    def recall(self, k: int) -> Rate | None:
        """Of the cases with label k, the proportion predicted as such; None if there are none."""
        return _rate(self.counts_KK[k, k], self.actual_K[k])

    def f1(self, k: int) -> float | None:
        """Harmonic mean of precision and recall of class k; None if there are neither predictions nor labels of it."""
        cases = int(self.predicted_K[k]) + int(self.actual_K[k])
        return 2 * int(self.counts_KK[k, k]) / cases if cases else None

    def matthews(self) -> float | None:
        """Matthews correlation coefficient for K classes, -1 to 1 (Gorodkin 2004, R_K).

        None where it is undefined: if all predictions or all labels are of one class.
        """
        # in Python's integers: squares of counts would overflow int64, and their differences would cancel in float64
        actual, predicted = self.actual_K.tolist(), self.predicted_K.tolist()
        total = self.total
        covariance = self.correct * total - sum(t * p for t, p in zip(actual, predicted, strict=True))
        actual_variance = total * total - sum(t * t for t in actual)
        predicted_variance = total * total - sum(p * p for p in predicted)
        if not actual_variance or not predicted_variance:
            return None
        squared = covariance * covariance / (actual_variance * predicted_variance)
        return copysign(sqrt(squared), covariance)


def _rate(successes: int | np.int64, count: int | np.int64) -> Rate | None:
    return wilson(int(successes), int(count)) if count else None


def _indices(indices: Sequence[int] | NDArray[np.integer], name: str, class_count: int) -> NDArray[np.int64]:
    array_N = np.asarray(indices)
    if array_N.ndim != 1 or (array_N.size and array_N.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} is {array_N.dtype} with shape {list(array_N.shape)}; it must be integers with shape [N]"
        )
    outside_N = (array_N < 0) | (array_N >= class_count)
    if outside_N.any():
        first = int(outside_N.argmax())
        raise ValueError(
            f"{name}[{first}] is {array_N[first]}; with {class_count} classes it must be 0 to {class_count - 1}"
        )
    return array_N.astype(np.int64, copy=False)
