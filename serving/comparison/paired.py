"""Two versions compared on the same images."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from serving.comparison.binomial import mcnemar_p
from serving.comparison.proportions import Interval, Rate, square_and_add, wilson
from serving.comparison.results import ClassDifference, Comparison, PairCounts
from serving.comparison.sequential import sequential_test


def paired_rates(pairs: PairCounts) -> tuple[Rate, Rate, Interval]:
    """Both accuracies, and the second minus the first, with their 95% intervals.

    That of the difference is method 10 of Newcombe 1998 (Improved Confidence Intervals for the Difference between
    Binomial Proportions Based on Paired Data, Statistics in Medicine 17): Wilson intervals of both, combined with the
    correlation of the two, which is corrected for continuity where it is positive.

    Raises:
        ValueError: if there are no pairs.
    """
    e, f, g, h = pairs.both_correct, pairs.only_first_correct, pairs.only_second_correct, pairs.both_incorrect
    first, second = wilson(e + f, pairs.count), wilson(e + g, pairs.count)
    product = (e + f) * (g + h) * (e + g) * (f + h)
    covariance: float = e * h - f * g
    if covariance > 0:
        covariance = max(covariance - pairs.count / 2, 0.0)
    return first, second, square_and_add(first, second, covariance / sqrt(product) if product else 0.0)


def compare_pairs(classes: Sequence[str], counts_K22: NDArray[np.int64]) -> Comparison:
    """Compare two versions on the images that both classified.

    Args:
        classes: class names in index order, K of them.
        counts_K22: int64 `[K, 2, 2]`: [label, whether the first is correct, whether the second is].
    """
    totals = _counts(counts_K22.sum(axis=0))
    if not totals.count:
        return Comparison(pairs=totals)
    first, second, difference = paired_rates(totals)
    sequential = sequential_test(totals.only_first_correct, totals.only_second_correct)
    discordant = totals.only_first_correct + totals.only_second_correct
    needed = sequential.pairs_needed
    return Comparison(
        pairs=totals,
        first=first,
        second=second,
        difference=difference,
        p_value=mcnemar_p(totals.only_first_correct, totals.only_second_correct),
        sequential=sequential,
        labels_needed=None if needed is None else ceil(needed * totals.count / discordant),
        classes=_class_differences(classes, counts_K22),
    )


def _class_differences(classes: Sequence[str], counts_K22: NDArray[np.int64]) -> list[ClassDifference]:
    """The classes with labels: first those in which most images changed in one direction."""
    change_K = counts_K22[:, 0, 1] - counts_K22[:, 1, 0]
    total_K = counts_K22.sum(axis=(1, 2))
    order = np.lexsort((-total_K, -np.abs(change_K)))
    return [
        ClassDifference(classes[index], *paired_rates(_counts(counts_K22[index])))
        for index in order[total_K[order] > 0]
    ]


def _counts(counts_22: NDArray[np.int64]) -> PairCounts:
    (neither, second), (first, both) = counts_22.tolist()
    return PairCounts(both, first, second, neither)
