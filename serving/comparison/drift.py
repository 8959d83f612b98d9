"""Whether predictions are distributed as those on the validation images: a distance, and a test with its size.

Both compare two samples that are counted in the same bins. The distance is the population stability index; by custom,
0.1 is a small and 0.25 a large difference. Its expectation without any difference is about (bins - 1) (1/n + 1/m) for
samples of n and m (Yurdakul and Naranjo, Statistical properties of the population stability index, Journal of Risk
Model Validation 14(4), 2020), so it is read together with the test: the likelihood-ratio test of homogeneity (G-test;
Sokal and Rohlf, Biometry, 1995, chapter 17). That the validation images are a sample too is part of the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, fsum, lgamma, log, sqrt

MIN_EXPECTED = 5.0
"""Bins with fewer expected counts in one of the samples are merged, since the test's distribution is a limit."""
FALSE_ALARM_RATE = 0.01
EVALUATIONS = 10_000
"""Predictions within which the probability of a false alarm is at most FALSE_ALARM_RATE."""
TESTS = 2
"""Number of tests of each version: one of its classes, one of its confidence."""
ALARM_P_VALUE = FALSE_ALARM_RATE / EVALUATIONS / TESTS
"""An alarm needs a p-value below this. By Bonferroni's inequality, which holds for evaluations that depend on each
other, as those of a rolling window do, this keeps FALSE_ALARM_RATE with an evaluation after each prediction."""
ALARM_INDEX = 0.25
"""An alarm also needs this stability index, so that a difference that is certain but small raises none."""


@dataclass(frozen=True)
class Shift:
    """How a sample differs from the reference."""

    stability_index: float
    p_value: float

    @property
    def alarm(self) -> bool:
        """Whether the difference is large, and certain in spite of many evaluations."""
        return self.p_value < ALARM_P_VALUE and self.stability_index >= ALARM_INDEX


def compare_counts(reference: Sequence[int], sample: Sequence[int]) -> Shift:
    """Compare two samples that were counted in the same bins; neither may be empty.

    Raises:
        ValueError: if the number of bins differs, or a sample is empty.
    """
    if len(reference) != len(sample) or not sum(reference) or not sum(sample):
        raise ValueError(
            f"{len(reference)} and {len(sample)} bins count {sum(reference)} and {sum(sample)}; needed are the same "
            "bins, and a count in both"
        )
    merged = merge_rare(reference, sample)
    statistic = g_statistic(merged)
    return Shift(stability_index(merged), chi_squared_tail(statistic, len(merged) - 1))


def merge_rare(reference: Sequence[int], sample: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of counts, with those bins merged into one that are too rare in both samples together to be tested.

    Which bins are merged depends on the sums of both samples only, so the test keeps its size.
    """
    n, m = sum(reference), sum(sample)
    least = MIN_EXPECTED * (n + m) / min(n, m)
    pairs = sorted(zip(reference, sample, strict=True), key=sum, reverse=True)
    common = [pair for pair in pairs if sum(pair) >= least]
    rare = pairs[len(common) :]
    if rare:
        rest = (sum(count for count, _ in rare), sum(count for _, count in rare))
        if sum(rest) < least and common:
            last = common.pop()
            rest = (rest[0] + last[0], rest[1] + last[1])
        common.append(rest)
    return common


def stability_index(pairs: Sequence[tuple[int, int]]) -> float:
    """The population stability index, the sum of (q - p) log(q / p); half a count is added to each bin."""
    n, m = (sum(counts) + len(pairs) / 2 for counts in zip(*pairs, strict=True))
    shares = [((first + 0.5) / n, (second + 0.5) / m) for first, second in pairs]
    return fsum((q - p) * log(q / p) for p, q in shares)


def g_statistic(pairs: Sequence[tuple[int, int]]) -> float:
    """Twice the logarithm of the likelihood ratio of different to equal distributions."""
    n, m = (sum(counts) for counts in zip(*pairs, strict=True))
    total = 0.0
    for first, second in pairs:
        share = (first + second) / (n + m)
        total += sum(count * log(count / (size * share)) for count, size in ((first, n), (second, m)) if count)
    return max(0.0, 2 * total)


def chi_squared_tail(value: float, freedom: int) -> float:
    """The probability that a chi-squared variable of so many degrees of freedom is at least `value`.

    The upper incomplete gamma function of a multiple of 1/2 is a finite sum (Abramowitz and Stegun, 26.4.4 and 26.4.5).
    """
    if freedom < 1 or value <= 0:
        return 1.0
    half = value / 2
    exponent = 0.5 if freedom % 2 else 0.0
    total = erfc(sqrt(half)) if freedom % 2 else 0.0
    while exponent < freedom / 2:
        total += exp(exponent * log(half) - half - lgamma(exponent + 1))
        exponent += 1
    return min(1.0, total)
