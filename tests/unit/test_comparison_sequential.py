"""The sequential test may be evaluated after every label: its error rates, and its definition."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom, binom

from serving.comparison.sequential import MAX_E_VALUE, PRIOR, THRESHOLD, Verdict, log_e_value, sequential_test

RUNS, TOSSES = 10_000, 1_000


def fewest_that_decide(most: int) -> np.ndarray:
    """int64 `[most]`: of 1, 2, … discordant images, how many must favour one version to decide; more than all if none.

    Of the production function: evidence grows with the larger share, so one bound says it all.
    """
    bounds = np.empty(most, np.int64)
    larger = 1
    for count in range(1, most + 1):
        larger = max(larger, (count + 1) // 2)
        while larger <= count and log_e_value(count - larger, larger) < log(THRESHOLD):
            larger += 1
        bounds[count - 1] = larger
    return bounds


def decided(share: float, seed: int) -> np.ndarray:
    """bool `[RUNS, TOSSES]`: whether a run would have stopped by then, evaluated after every discordant image."""
    rng = np.random.default_rng(seed)
    count_T = np.arange(1, TOSSES + 1)
    bound_T = fewest_that_decide(TOSSES)
    stopped = []
    for _ in range(10):
        second_RT = (rng.random((RUNS // 10, TOSSES), np.float32) < share).cumsum(axis=1, dtype=np.int32)
        stopped.append(np.maximum(second_RT, count_T - second_RT) >= bound_T)
    return np.logical_or.accumulate(np.concatenate(stopped), axis=1)


def test_equal_versions_evaluated_after_every_label_are_decided_in_at_most_5_percent_of_runs() -> None:
    share = decided(0.5, seed=1)[:, -1].mean()
    assert 0.005 < share <= 0.05


def test_a_p_value_evaluated_after_every_label_would_decide_far_more_often() -> None:
    """Why the sequential test is needed: the same runs, stopped at the first p < 0.05."""
    rng = np.random.default_rng(1)
    second_RT = (rng.random((1_000, TOSSES)) < 0.5).cumsum(axis=1)
    count_T = np.arange(1, TOSSES + 1)
    z_RT = np.abs(2 * second_RT - count_T) / np.sqrt(count_T)
    assert (z_RT[:, 10:] > 1.96).any(axis=1).mean() > 0.25


def test_a_version_that_is_better_is_found() -> None:
    """97% against 98% correct with 3% discordant images: two thirds of those favour the second."""
    stopped = decided(2 / 3, seed=2)
    assert stopped[:, 199].mean() > 0.95
    assert stopped[:, -1].all()


@given(first=st.integers(0, 5_000), second=st.integers(0, 5_000))
def test_the_e_value_is_the_likelihood_ratio_of_mixed_coins_and_a_fair_coin(first: int, second: int) -> None:
    count = first + second
    expected = betabinom.logpmf(first, count, PRIOR, PRIOR) - binom.logpmf(first, count, 0.5)
    assert log_e_value(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(first=st.integers(0, 500), second=st.integers(0, 500))
def test_under_equality_the_next_label_is_expected_to_change_nothing(first: int, second: int) -> None:
    """The defining property: a martingale."""
    now = log_e_value(first, second)
    after = [log_e_value(first + 1, second) - now, log_e_value(first, second + 1) - now]
    assert (exp(after[0]) + exp(after[1])) / 2 == pytest.approx(1, rel=1e-9)


def test_a_decision_for_the_second_version_is_evidence_against_the_second_being_worse() -> None:
    """Averaged over coins that favour the second only, an e-value for "not better" of at least the threshold."""
    for count, larger in enumerate(fewest_that_decide(300).tolist(), 1):
        if larger <= count:
            smaller = count - larger
            one_sided = 2 * exp(log_e_value(smaller, larger)) * beta.sf(0.5, larger + PRIOR, smaller + PRIOR)
            assert one_sided >= THRESHOLD


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (0, 0, Verdict.UNDECIDED),
        (10, 12, Verdict.UNDECIDED),
        (60, 20, Verdict.FIRST_IS_BETTER),
        (20, 60, Verdict.SECOND_IS_BETTER),
    ],
)
def test_verdicts(first: int, second: int, verdict: Verdict) -> None:
    assert sequential_test(first, second).verdict is verdict


def test_enormous_evidence_is_a_finite_number() -> None:
    found = sequential_test(0, 10**6)
    assert (found.e_value, found.verdict) == (pytest.approx(MAX_E_VALUE), Verdict.SECOND_IS_BETTER)


def test_the_number_of_pairs_needed_is_the_smallest_that_decides() -> None:
    needed = sequential_test(10, 20).pairs_needed
    assert needed is not None
    assert log_e_value(needed / 3, 2 * needed / 3) >= log(THRESHOLD)
    assert log_e_value((needed - 1) / 3, 2 * (needed - 1) / 3) < log(THRESHOLD)
    assert sequential_test(7, 7).pairs_needed is None
    assert sequential_test(499_999, 500_001).pairs_needed is None  # more than anybody will label
