"""Drift: the distance and the test against scipy, what is merged, and what a window counts."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency, entropy

from serving.bundle.validation import ValidationPredictions
from serving.comparison.drift import (
    ALARM_P_VALUE,
    chi_squared_tail,
    compare_counts,
    g_statistic,
    merge_rare,
    stability_index,
)
from serving.models.drift import MIN_PREDICTIONS, WINDOW, DriftWindow

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 100)), min_size=2, max_size=12)


@given(st.floats(0.001, 400), st.integers(1, 60))
def test_the_tail_is_that_of_scipy(value: float, freedom: int) -> None:
    assert chi_squared_tail(value, freedom) == pytest.approx(chi2.sf(value, freedom), rel=1e-9, abs=1e-300)


@given(st.lists(st.tuples(st.integers(6, 500), st.integers(6, 100)), min_size=2, max_size=12))
def test_the_test_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    expected = chi2_contingency(np.array(pairs).T, correction=False, lambda_="log-likelihood")
    assert g_statistic(pairs) == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert chi_squared_tail(g_statistic(pairs), len(pairs) - 1) == pytest.approx(expected.pvalue, rel=1e-6)


@given(COUNTS)
def test_the_stability_index_is_the_symmetric_divergence(pairs: list[tuple[int, int]]) -> None:
    p, q = (np.array(each) + 0.5 for each in zip(*pairs, strict=True))
    assert stability_index(pairs) == pytest.approx(entropy(p, q) + entropy(q, p), rel=1e-9, abs=1e-12)


@given(COUNTS)
def test_merging_keeps_all_counts_and_leaves_no_rare_bin(pairs: list[tuple[int, int]]) -> None:
    reference, sample = ([1 + count for count in each] for each in zip(*pairs, strict=True))
    merged = merge_rare(reference, sample)
    assert [sum(each) for each in zip(*merged, strict=True)] == [sum(reference), sum(sample)]
    total, smaller = sum(reference) + sum(sample), min(sum(reference), sum(sample))
    assert len(merged) == 1 or all(sum(pair) * smaller / total >= 5 for pair in merged)


def test_equal_distributions_do_not_differ_and_opposite_ones_do() -> None:
    same = compare_counts([500, 500], [100, 100])
    assert (same.stability_index, same.p_value, same.alarm) == (pytest.approx(0, abs=1e-4), 1.0, False)
    dogs = compare_counts([500, 500], [0, 50])
    assert dogs.alarm
    assert dogs.p_value < ALARM_P_VALUE
    assert dogs.stability_index > 1


def test_a_certain_but_small_difference_is_no_alarm() -> None:
    shift = compare_counts([500_000, 500_000], [53_000, 47_000])
    assert shift.p_value < ALARM_P_VALUE
    assert shift.stability_index < 0.25
    assert not shift.alarm


@pytest.mark.parametrize(("reference", "sample"), [([1, 2], [1]), ([0, 0], [1, 2]), ([1, 2], [0, 0])])
def test_what_cannot_be_compared_is_rejected(reference: list[int], sample: list[int]) -> None:
    with pytest.raises(ValueError, match="needed are the same bins"):
        compare_counts(reference, sample)


def test_the_size_of_the_test_is_that_of_its_p_values() -> None:
    """20,000 samples of the same distribution: p-values below a level are at most as frequent as it, nearly."""
    rng = np.random.default_rng(0)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.08, 0.015, 0.005])
    p_values = np.array(
        [
            compare_counts(rng.multinomial(1000, shares).tolist(), rng.multinomial(200, shares).tolist()).p_value
            for _ in range(20_000)
        ]
    )
    for level in (0.1, 0.01, 0.001):
        assert (p_values < level).mean() < level * 1.25 + 3 * (level / len(p_values)) ** 0.5


def test_bins_of_confidence_are_finer_for_the_lowest() -> None:
    confidence = np.linspace(0, 1, 1000, endpoint=False).tolist()
    counted = ValidationPredictions.count([0] * 600 + [1] * 400, confidence, 3)
    assert counted.class_counts == (600, 400, 0)
    assert counted.confidence_counts == (10, 10, 30, 50, *(100,) * 9)
    assert [counted.bin_of(each) for each in (0.0, counted.confidence_edges[0], 1.0)] == [0, 1, 12]
    assert ValidationPredictions.from_fields(counted.to_fields()) == counted


def test_confidences_that_hardly_differ_share_a_bin() -> None:
    counted = ValidationPredictions.count([0] * 100, [*np.linspace(0.7, 0.8, 10), *np.linspace(0.99, 1, 90)], 2)
    assert counted.confidence_counts == (1, 1, 3, 5, 90)
    assert ValidationPredictions.count([0] * 5, [1.0] * 5, 2).confidence_counts == (5,)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"class_counts": [5, 4]}, "counts 9 images by class and 10 by confidence"),
        ({"class_counts": [-1, 11]}, "not whole numbers"),
        ({"class_counts": ["5", 5]}, "not whole numbers"),
        ({"confidence_counts": [10]}, "one more than edges"),
        ({"confidence_edges": [1.5]}, "must ascend"),
        ({"confidence_edges": ["high"]}, "could not convert"),
        ({"class_counts": None}, "malformed"),
    ],
)
def test_malformed_counts_are_rejected(changes: dict[str, object], complaint: str) -> None:
    fields = {"class_counts": [5, 5], "confidence_edges": [0.9], "confidence_counts": [4, 6]}
    with pytest.raises(ValueError, match=complaint):
        ValidationPredictions.from_fields(fields | changes)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=700))
def test_a_window_counts_the_last_predictions(predictions: list[tuple[int, float]]) -> None:
    reference = ValidationPredictions((5, 4, 1), (0.5, 0.9), (2, 3, 5))
    window, last = DriftWindow(reference), deque(predictions, maxlen=WINDOW)
    for predicted, confidence in predictions:
        window.add(predicted, confidence)
    drift = window.read()
    classes, confidences = drift.distributions
    assert drift.predictions == len(last)
    assert list(classes.counts) == [sum(predicted == index for predicted, _ in last) for index in range(3)]
    bins = [reference.bin_of(confidence) for _, confidence in last]
    assert list(confidences.counts) == [bins.count(index) for index in range(3)]
    assert all((each.shift is None) == (len(last) < MIN_PREDICTIONS) for each in drift.distributions)


def test_without_a_reference_there_is_no_alarm() -> None:
    window = DriftWindow(None)
    for _ in range(500):
        window.add(0, 0.1)
    assert not window.read().alarm
    assert window.read().unavailable == "no reference in the bundle: export the run again"


def test_an_alarm_ends_when_predictions_are_as_before() -> None:
    window = DriftWindow(ValidationPredictions((500, 500), (0.9,), (100, 900)))
    for number in range(WINDOW):
        window.add(0, 0.85 if number % 10 == 0 else 0.95)
    assert [each.shift is not None and each.shift.alarm for each in window.read().distributions] == [True, False]
    for number in range(WINDOW):
        window.add(number % 2, 0.85 if number % 10 == 0 else 0.95)
    assert not window.read().alarm
