"""Calibration bins, and the error and interval that follow from them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.statistics.calibration import (
    BIN_COUNT,
    bin_of,
    bin_predictions,
    calibration_error_interval,
    expected_calibration_error,
    to_bins,
)

CASES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("probability", "index"),
    [
        (0.0, 0),
        (0.1, 1),
        (0.3, 3),
        (math.nextafter(0.3, 0), 2),
        (0.6, 6),
        (0.7, 7),
        (math.nextafter(1, 0), 9),
        (1.0, 9),
    ],
)
def test_a_bin_includes_its_lower_end_and_the_last_one_its_upper_end(probability: float, index: int) -> None:
    assert bin_of(probability) == index


@given(st.floats(0, 1))
def test_every_probability_is_in_the_bin_whose_ends_enclose_it(probability: float) -> None:
    each = to_bins([])[bin_of(probability)]
    assert each.lower <= probability < each.upper or probability == each.upper == 1


def test_without_labels_all_bins_are_empty_and_there_is_no_error() -> None:
    bins = to_bins([])
    assert [(each.lower, each.upper) for each in bins] == [(k / 10, (k + 1) / 10) for k in range(BIN_COUNT)]
    assert all(each.mean_probability is None and each.accuracy is None for each in bins)
    assert expected_calibration_error(bins) is None


@given(CASES)
def test_bins_and_error_are_those_of_the_definition(cases: list[tuple[float, bool]]) -> None:
    bins = to_bins((bin_of(probability), 1, int(correct), probability) for probability, correct in cases)
    probability_N, correct_N = np.array(cases).T
    error = 0.0
    for each in bins:
        inside_N = (probability_N >= each.lower) & ((probability_N < each.upper) | (each.upper == 1))
        assert (each.accuracy.count if each.accuracy else 0) == inside_N.sum()
        if inside_N.any():
            assert each.accuracy is not None
            assert each.mean_probability == pytest.approx(probability_N[inside_N].mean())
            assert each.accuracy.value == pytest.approx(correct_N[inside_N].mean())
            error += abs(correct_N[inside_N].mean() - probability_N[inside_N].mean()) * inside_N.mean()
    assert expected_calibration_error(bins) == pytest.approx(error)


@given(CASES)
def test_the_server_s_tallies_and_training_s_arrays_give_the_same_bins(cases: list[tuple[float, bool]]) -> None:
    tallied = to_bins((bin_of(probability), 1, int(correct), probability) for probability, correct in cases)
    probability_N = np.array([probability for probability, _ in cases])
    binned = bin_predictions(probability_N, np.array([correct for _, correct in cases]))
    assert [each.accuracy for each in binned] == [each.accuracy for each in tallied]
    assert expected_calibration_error(binned) == pytest.approx(expected_calibration_error(tallied))


@settings(max_examples=30)
@given(CASES)
def test_the_interval_contains_the_estimate_and_is_reproducible(cases: list[tuple[float, bool]]) -> None:
    bins = to_bins((bin_of(probability), 1, int(correct), probability) for probability, correct in cases)
    lower, upper = calibration_error_interval(bins)
    value = expected_calibration_error(bins)
    assert value is not None
    assert 0 <= lower <= value <= upper <= 1
    assert calibration_error_interval(bins) == (lower, upper)


@pytest.mark.parametrize(("count", "offset"), [(100, 0.0), (3000, 0.0), (3000, 0.02), (300, 0.15)])
def test_at_least_nineteen_of_twenty_intervals_contain_the_true_error(count: int, offset: float) -> None:
    """The probabilities are too high by `offset`, which is then the true error."""
    rng = np.random.default_rng(0)
    contained, repeats = 0, 100
    for _ in range(repeats):
        accuracy_N = rng.choice([0.42, 0.52, 0.62, 0.72, 0.82], count)
        bins = bin_predictions(accuracy_N + offset, rng.random(count) < accuracy_N)
        lower, upper = calibration_error_interval(bins)
        contained += lower <= offset <= upper
    assert contained >= 0.93 * repeats


def test_bins_without_a_mistake_may_still_be_miscalibrated() -> None:
    bins = bin_predictions(np.full(100, 0.99), np.ones(100, bool))
    lower, upper = calibration_error_interval(bins)
    assert lower == 0
    assert 0.01 < upper < 0.05
