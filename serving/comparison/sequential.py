"""A test of two versions that is valid at any time: it may be evaluated after every label, and stopped at any time.

If two versions are equally accurate, an image that only one of them classifies correctly is a fair coin: it is the
first or the second. The e-value is the likelihood ratio of these tosses, averaged over all biased coins with the
distribution Beta(5, 5), against the fair coin. Under equality its expectation is 1 at any time, so the probability that
it *ever* reaches 20 is at most 1/20 (Ville 1939; Robbins 1970, Statistical Methods Related to the Law of the Iterated
Logarithm; Ramdas, Grünwald, Vovk and Shafer 2023, Game-Theoretic Statistics and Safe Anytime-Valid Inference). That
holds however often the test is evaluated, and for any reason to stop. A p-value does not have this property.

For one direction the same holds with less: the claim "the second is better" needs the average over coins that favour
the second only, which has an expectation of at most 1 whenever the second is not better. Where the e-value is 20 and
most tosses favour the second, that average exceeds 20 too.
"""

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from math import exp, lgamma, log

PRIOR = 5.0
"""Both parameters of the Beta distribution. It favours shares of 0.3 to 0.7, which take most labels to find."""
THRESHOLD = 20.0
"""The e-value that decides: 1 divided by the probability of deciding between equal versions, 5%."""
MAX_E_VALUE = 1e300
_MAX_PAIRS = 10**12


class Verdict(Enum):
    """Result of the sequential test."""

    UNDECIDED = "undecided"
    FIRST_IS_BETTER = "first is better"
    SECOND_IS_BETTER = "second is better"


@dataclass(frozen=True)
class SequentialTest:
    """The sequential test of two versions."""

    e_value: float
    """Evidence that they differ: 1 says nothing, 20 decides; at most 1e300."""
    verdict: Verdict
    pairs_needed: int | None
    """How many images that only one classifies correctly decide, in all, if the present shares stay; None if they are
    equal, or so close that it takes more than 10^12."""


def log_e_value(only_first: float, only_second: float) -> float:
    """The logarithm of the e-value.

    Args:
        only_first: how many images only the first version classifies correctly, at least 0.
        only_second: how many images only the second version classifies correctly, at least 0.
    """
    count = only_first + only_second
    return count * log(2) + _log_beta(only_first + PRIOR, only_second + PRIOR) - _log_beta(PRIOR, PRIOR)


def sequential_test(only_first: int, only_second: int) -> SequentialTest:
    """Test whether two versions differ in accuracy.

    Args:
        only_first: how many images only the first version classifies correctly.
        only_second: how many images only the second version classifies correctly.
    """
    log_e = log_e_value(only_first, only_second)
    verdict = Verdict.UNDECIDED
    if log_e >= log(THRESHOLD):
        verdict = Verdict.FIRST_IS_BETTER if only_first > only_second else Verdict.SECOND_IS_BETTER
    e_value = exp(min(log_e, log(MAX_E_VALUE)))
    return SequentialTest(e_value, verdict, _pairs_needed(only_first, only_second))


def _pairs_needed(only_first: int, only_second: int) -> int | None:
    count = only_first + only_second
    if only_first == only_second:
        return None
    share = only_first / count

    def decides(pairs: int) -> bool:
        return log_e_value(share * pairs, (1 - share) * pairs) >= log(THRESHOLD)

    high = 1
    while not decides(high):
        high *= 2
        if high > _MAX_PAIRS:
            return None
    return bisect_left(range(high), True, lo=high // 2, key=decides)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
