"""Two versions compared on different images: their traffic may differ, so this says less than pairs do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.comparison.binomial import fisher_p
from serving.comparison.proportions import Rate, square_and_add, wilson
from serving.comparison.results import ClassDifference, Comparison

Counts = NDArray[np.int64]


def compare_groups(
    classes: Sequence[str], first_correct_K: Counts, first_K: Counts, second_correct_K: Counts, second_K: Counts
) -> Comparison:
    """Compare two versions, each on its own labelled images.

    The interval of the difference is Newcombe's hybrid score interval (1998, Interval Estimation for the Difference
    between Independent Proportions, method 10, Statistics in Medicine 17).

    Args:
        classes: class names, K of them.
        first_correct_K: int64 `[K]`: labels of each class that the first version predicted correctly.
        first_K: int64 `[K]`: labels of each class among the first version's images.
        second_correct_K: as `first_correct_K`.
        second_K: as `first_K`.
    """
    counts = [int(each.sum()) for each in (first_correct_K, first_K, second_correct_K, second_K)]
    first, second = _rate(counts[0], counts[1]), _rate(counts[2], counts[3])
    return Comparison(
        first=first,
        second=second,
        difference=square_and_add(first, second) if first and second else None,
        p_value=fisher_p(*counts) if first and second else None,
        classes=_class_differences(classes, first_correct_K, first_K, second_correct_K, second_K),
    )


def _class_differences(
    classes: Sequence[str], first_correct_K: Counts, first_K: Counts, second_correct_K: Counts, second_K: Counts
) -> list[ClassDifference]:
    """The classes with labels of both: first those with the largest change, by images of the smaller sample."""
    found = []
    for index in np.flatnonzero((first_K > 0) & (second_K > 0)).tolist():
        first = wilson(first_correct_K[index], first_K[index])
        second = wilson(second_correct_K[index], second_K[index])
        found.append(ClassDifference(classes[index], first, second, square_and_add(first, second)))
    found.sort(key=lambda each: -abs(each.difference.value) * min(each.first.count, each.second.count))
    return found


def _rate(correct: int, count: int) -> Rate | None:
    return wilson(correct, count) if count else None
