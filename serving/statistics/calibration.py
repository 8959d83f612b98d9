"""How sure predictions were and how often they were right in; bins and the calibration error out. No I/O."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.statistics.confusion import Rate, wilson

BIN_COUNT = 10
BIN_EDGES = tuple(index / BIN_COUNT for index in range(BIN_COUNT + 1))


@dataclass(frozen=True, slots=True)
class Bin:
    """Labelled predictions whose probability was from `lower` to below `upper`; the last bin holds 1 too."""

    lower: float
    upper: float
    mean_probability: float | None
    """Mean probability of the predicted class; None if the bin is empty."""
    accuracy: Rate | None
    """Proportion that was right; None if the bin is empty."""


def bin_of(probability: float) -> int:
    """The index, 0 to 9, of the bin of equal width that holds a probability, 0 to 1."""
    # compared with the edges that callers are told, not multiplied: 0.3's neighbour times 10 rounds to 3
    return min(bisect_right(BIN_EDGES, probability) - 1, BIN_COUNT - 1)


def to_bins(tallies: Iterable[tuple[int, int, int, float]]) -> tuple[Bin, ...]:
    """The ten bins of tallies, in any order: bin index, count, how many were right, and the sum of probabilities."""
    counts, right, sums = [0] * BIN_COUNT, [0] * BIN_COUNT, [0.0] * BIN_COUNT
    for index, count, correct, probability_sum in tallies:
        counts[index] += count
        right[index] += correct
        sums[index] += probability_sum
    return tuple(_bin(index, counts[index], right[index], sums[index]) for index in range(BIN_COUNT))


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """Mean of |accuracy - mean probability|, weighted by the bins' counts (Guo et al. 2017, equation 3); 0 to 1.

    None if all bins are empty.
    """
    gaps = [
        (each.accuracy.count, abs(each.accuracy.value - each.mean_probability))
        for each in bins
        if each.accuracy is not None and each.mean_probability is not None
    ]
    total = sum(count for count, _ in gaps)
    return sum(count * gap for count, gap in gaps) / total if total else None


def _bin(index: int, count: int, right: int, probability_sum: float) -> Bin:
    lower, upper = BIN_EDGES[index], BIN_EDGES[index + 1]
    if not count:
        return Bin(lower, upper, None, None)
    # sums that labels were moved out of carry rounding errors; the mean of a bin lies in the bin
    return Bin(lower, upper, min(upper, max(lower, probability_sum / count)), wilson(right, count))
