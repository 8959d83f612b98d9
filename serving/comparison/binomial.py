"""Tails of binomial and hypergeometric distributions, by sums of terms in logarithms: exact for any size of sample."""

from collections.abc import Iterator
from math import exp, fsum, lgamma, log

import numpy as np

_NEGLIGIBLE = 1e-18
_TIE = 1e-9
_MAX_TABLES = 2_000_000


def log_choose(n: int, k: int) -> float:
    """The logarithm of the binomial coefficient."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def half_binomial_tail(n: int, k: int) -> float:
    """The probability of at most k successes in n tosses of a fair coin; k is -1 to n."""
    if k >= n:
        return 1.0
    if k < 0:
        return 0.0
    if 2 * k + 1 > n:
        return 1.0 - half_binomial_tail(n, n - k - 1)
    return exp(log_choose(n, k) - n * log(2)) * fsum(_falling(n, k))


def _falling(n: int, k: int) -> Iterator[float]:
    """The terms for k, k - 1, … 0 successes divided by the first, until they are negligible; 2k < n."""
    term = 1.0
    while k >= 0 and term > _NEGLIGIBLE:
        yield term
        term *= k / (n - k + 1)
        k -= 1


def mcnemar_p(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided (McNemar 1947): 1 where nothing differs.

    Args:
        only_first: how many cases only the first is correct in.
        only_second: how many cases only the second is correct in.
    """
    return min(1.0, 2.0 * half_binomial_tail(only_first + only_second, min(only_first, only_second)))


def fisher_p(first_correct: int, first_count: int, second_correct: int, second_count: int) -> float:
    """Fisher's exact test of two proportions, two-sided: the probability of all tables that are no more probable.

    Args:
        first_correct: successes of the first sample.
        first_count: cases of the first sample.
        second_correct: successes of the second sample.
        second_count: cases of the second sample.
    """
    correct, total = first_correct + second_correct, first_count + second_count
    lowest, highest = max(0, correct - second_count), min(first_count, correct)
    mode = min(highest, max(lowest, (first_count + 1) * (correct + 1) // (total + 2)))
    # tables more than 50 standard deviations from the mode have no probability that a float could hold
    variance = first_count * second_count * correct * (total - correct) / max(1, total * total * (total - 1))
    reach = min(_MAX_TABLES, int(50 * variance**0.5) + 50)
    lowest, highest = max(lowest, mode - reach), min(highest, mode + reach)
    if not lowest <= first_correct <= highest:
        return 0.0
    k = np.arange(lowest, highest, dtype=np.float64)
    steps = np.log((first_count - k) * (correct - k)) - np.log((k + 1) * (second_count - correct + k + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    unlikely = logs <= logs[first_correct - lowest] + _TIE
    return min(1.0, float(weights[unlikely].sum() / weights.sum()))
