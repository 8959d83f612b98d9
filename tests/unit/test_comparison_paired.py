"""Two versions on the same images: McNemar's exact test, Newcombe's interval, differences by class."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from serving.comparison.binomial import half_binomial_tail, mcnemar_p
from serving.comparison.paired import compare_pairs, paired_rates
from serving.comparison.results import PairCounts
from serving.comparison.sequential import Verdict

COUNTS = st.integers(0, 40)


@given(n=st.integers(0, 3_000), share=st.floats(0, 1))
def test_tails_of_fair_coins_agree_with_scipy(n: int, share: float) -> None:
    k = round(share * n)
    assert half_binomial_tail(n, k) == pytest.approx(binom.cdf(k, n, 0.5), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("n", "k"), [(10**6, 498_000), (10**6, 500_000), (10**7, 4_990_000), (5, -1), (5, 5)])
def test_tails_of_very_many_coins_agree_with_scipy(n: int, k: int) -> None:
    assert half_binomial_tail(n, k) == pytest.approx(binom.cdf(k, n, 0.5), rel=1e-6)


@given(first=st.integers(0, 400), second=st.integers(0, 400))
def test_mcnemar_s_p_value_is_that_of_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("pairs", "lower", "upper"),
    [
        # Altman, Machin, Bryant and Gardner 2000, Statistics with Confidence, table 6.2
        ((14, 0, 5, 22), 0.011, 0.226),
        # Bentur et al. 2009 and Cavo et al. 2012, as in Fagerland, Lydersen and Laake 2014 (Recommended Tests and
        # Confidence Intervals for Paired Binomial Proportions, Statistics in Medicine 33)
        ((1, 7, 1, 12), -0.507, -0.026),
        ((59, 16, 6, 80), -0.119, -0.005),
    ],
)
def test_the_interval_of_the_difference_is_newcombe_s_method_10(
    pairs: tuple[int, int, int, int], lower: float, upper: float
) -> None:
    *_, difference = paired_rates(PairCounts(*pairs))
    assert (difference.lower, difference.upper) == (pytest.approx(lower, abs=6e-4), pytest.approx(upper, abs=6e-4))


@given(both=COUNTS, first=COUNTS, second=COUNTS, neither=COUNTS)
def test_the_interval_contains_the_difference_and_swaps_with_the_versions(
    both: int, first: int, second: int, neither: int
) -> None:
    if not both + first + second + neither:
        return
    *_, found = paired_rates(PairCounts(both, first, second, neither))
    *_, swapped = paired_rates(PairCounts(both, second, first, neither))
    assert -1 <= found.lower <= found.value <= found.upper <= 1
    assert found.value == pytest.approx((second - first) / (both + first + second + neither))
    assert (swapped.value, swapped.lower, swapped.upper) == pytest.approx((-found.value, -found.upper, -found.lower))


@pytest.mark.parametrize("shares", [(0.9, 0.03, 0.05, 0.02), (0.6, 0.1, 0.2, 0.1), (0.97, 0.01, 0.01, 0.01)])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(shares: tuple[float, ...]) -> None:
    true = shares[2] - shares[1]
    drawn = multinomial(200, shares).rvs(2_000, random_state=0)
    covered = sum(found.lower <= true <= found.upper for *_, found in (paired_rates(PairCounts(*row)) for row in drawn))
    assert covered >= 0.94 * 2_000


def counts(*classes: tuple[int, int, int, int]) -> np.ndarray:
    """[K, 2, 2] of (both, only the first, only the second, neither) for each class."""
    return np.array([[[neither, second], [first, both]] for both, first, second, neither in classes])


def test_a_comparison_adds_the_classes_up() -> None:
    compared = compare_pairs(("cat", "dog"), counts((40, 2, 5, 3), (30, 1, 9, 10)))
    assert compared.pairs == PairCounts(70, 3, 14, 13)
    assert compared.first is not None
    assert compared.second is not None
    assert compared.difference is not None
    assert (compared.first.value, compared.second.value) == (0.73, 0.84)
    assert compared.difference.value == pytest.approx(0.11)
    assert compared.p_value == pytest.approx(binomtest(3, 17).pvalue)
    assert [(each.name, each.first.count) for each in compared.classes] == [("dog", 50), ("cat", 50)]
    assert [each.difference.value for each in compared.classes] == [pytest.approx(0.16), pytest.approx(0.06)]


def test_the_number_of_labels_needed_decides_at_the_present_shares() -> None:
    undecided = compare_pairs(("cat",), counts((85, 3, 8, 4)))
    assert undecided.sequential is not None
    assert undecided.sequential.verdict is Verdict.UNDECIDED
    assert undecided.labels_needed is not None
    factor = math.ceil(undecided.labels_needed / 100)
    later = compare_pairs(("cat",), factor * counts((85, 3, 8, 4)))
    assert later.sequential is not None
    assert later.sequential.verdict is Verdict.SECOND_IS_BETTER
    earlier = compare_pairs(("cat",), (factor - 1) * counts((85, 3, 8, 4)))
    assert earlier.sequential is not None
    assert earlier.sequential.verdict is Verdict.UNDECIDED


def test_versions_that_never_differ_need_no_number_of_labels() -> None:
    same = compare_pairs(("cat",), counts((90, 0, 0, 10)))
    assert same.sequential is not None
    assert (same.p_value, same.labels_needed, same.sequential.e_value) == (1.0, None, 1.0)


def test_without_pairs_there_is_nothing_to_say() -> None:
    nothing = compare_pairs(("cat", "dog"), counts((0, 0, 0, 0), (0, 0, 0, 0)))
    assert nothing.pairs == PairCounts(0, 0, 0, 0)
    assert (nothing.first, nothing.difference, nothing.p_value, nothing.sequential) == (None, None, None, None)
    assert list(nothing.classes) == []


def test_of_a_thousand_classes_those_that_changed_most_come_first() -> None:
    rng = np.random.default_rng(0)
    counts_K22 = rng.integers(0, 30, (1_000, 2, 2))
    counts_K22[7] = 0
    names = [f"class {index}" for index in range(1_000)]
    compared = compare_pairs(names, counts_K22)
    changes = [abs(each.difference.value) * each.first.count for each in compared.classes]
    assert len(changes) == 999
    assert all(before >= after - 1e-9 for before, after in zip(changes, changes[1:], strict=False))
