"""Calibration: how probabilities compare with accuracy, in bins of equal width, and the expected calibration error.

Training's report and the server's statistics use the same bins and the same estimator. No I/O.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.comparison.proportions import Rate, wilson

BIN_COUNT = 10
"""The database holds counts for each bin, so another number needs a migration."""
BIN_EDGES = tuple(index / BIN_COUNT for index in range(BIN_COUNT + 1))
SIMULATIONS = 1000


@dataclass(frozen=True, slots=True)
class Bin:
    """Labelled predictions whose probability is at least `lower` and below `upper`; the last bin includes 1."""

    lower: float
    upper: float
    mean_probability: float | None
    """Mean probability of the predicted class; None if the bin is empty."""
    accuracy: Rate | None
    """Proportion of correct predictions; None if the bin is empty."""


def bin_of(probability: float) -> int:
    """The index, 0 to 9, of the bin that holds a probability, 0 to 1."""
    # compared with the edges that clients see instead of multiplied: 10 times the number before 0.3 rounds to 3
    return min(bisect_right(BIN_EDGES, probability) - 1, BIN_COUNT - 1)


def to_bins(tallies: Iterable[tuple[int, int, int, float]]) -> tuple[Bin, ...]:
    """Sum tallies into the ten bins.

    Args:
        tallies: in any order: bin index, number of predictions, number of correct ones, sum of probabilities.
    """
    counts, correct, sums = [0] * BIN_COUNT, [0] * BIN_COUNT, [0.0] * BIN_COUNT
    for index, count, correct_count, probability_sum in tallies:
        counts[index] += count
        correct[index] += correct_count
        sums[index] += probability_sum
    return tuple(_bin(index, counts[index], correct[index], sums[index]) for index in range(BIN_COUNT))


def bin_predictions(probability_N: NDArray[np.float64], correct_N: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Sort predictions into the ten bins.

    Args:
        probability_N: float64 `[N]`, the probability of each predicted class.
        correct_N: bool `[N]`, whether each prediction is correct.
    """
    pairs = zip(probability_N.tolist(), correct_N.tolist(), strict=True)
    return to_bins((bin_of(probability), 1, correct, probability) for probability, correct in pairs)


def expected_calibration_error(bins: Sequence[Bin]) -> float | None:
    """Mean of |accuracy - mean probability|, weighted by the bins' counts; 0 to 1, None if all bins are empty.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    gaps = [
        (each.accuracy.count, abs(each.accuracy.value - each.mean_probability))
        for each in bins
        if each.accuracy is not None and each.mean_probability is not None
    ]
    total = sum(count for count, _ in gaps)
    return sum(count * gap for count, gap in gaps) / total if total else None


def calibration_error_interval(bins: Sequence[Bin]) -> tuple[float, float]:
    """95% confidence interval of the expected calibration error; it always contains the estimate.

    The error sums absolute values, so noise raises the estimate, and a bootstrap percentile interval, which adds noise
    to noise, may lie above it. Here each end accounts for that bias:

    - Lower end: the smallest error that explains the estimate. Each bin's gap is scaled down until fewer than 2.5% of
      simulated data sets, with binomial counts of correct predictions, have an error as large as the estimate. It is
      0 if the predictions may be perfectly calibrated.
    - Upper end: the 97.5% quantile of the error if each bin's accuracy is drawn from its posterior distribution,
      Beta(correct + 1/2, incorrect + 1/2) (Jeffreys' prior). The bias makes this end conservative.

    At least one bin must not be empty. Every call gives the same interval, since the simulations have a fixed seed.
    """
    estimate = expected_calibration_error(bins)
    assert estimate is not None, "all bins are empty"
    filled = [(each.accuracy, each.mean_probability) for each in bins if each.accuracy is not None]
    count_B = np.array([accuracy.count for accuracy, _ in filled])
    accuracy_B = np.array([accuracy.value for accuracy, _ in filled])
    mean_B = np.array([mean for _, mean in filled])
    correct_B = np.rint(accuracy_B * count_B)

    def quantile(accuracy_RB: NDArray[np.float64]) -> float:
        errors_R = (count_B * np.abs(accuracy_RB - mean_B)).sum(1) / count_B.sum()
        return float(np.quantile(errors_R, 0.975))

    def largest_at(scale: float) -> float:
        scaled_B = (mean_B + scale * (accuracy_B - mean_B)).clip(0, 1)
        return quantile(np.random.default_rng(0).binomial(count_B, scaled_B, (SIMULATIONS, len(filled))) / count_B)

    low, high = 0.0, 0.0 if largest_at(0.0) >= estimate else 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if largest_at(middle) >= estimate else (middle, high)
    beta = np.random.default_rng(0).beta
    posterior_RB = beta(correct_B + 0.5, count_B - correct_B + 0.5, (SIMULATIONS, len(filled)))
    return high * estimate, max(estimate, quantile(posterior_RB))


def _bin(index: int, count: int, correct: int, probability_sum: float) -> Bin:
    lower, upper = BIN_EDGES[index], BIN_EDGES[index + 1]
    if not count:
        return Bin(lower, upper, None, None)
    # corrected labels leave rounding errors in the sums; the mean of a bin lies in the bin
    return Bin(lower, upper, min(upper, max(lower, probability_sum / count)), wilson(correct, count))
