"""Calibration bins, and the error that follows from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.statistics.calibration import BIN_COUNT, bin_of, expected_calibration_error, to_bins


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
def test_a_bin_holds_its_lower_end_and_the_last_one_its_upper_too(probability: float, index: int) -> None:
    assert bin_of(probability) == index


@given(st.floats(0, 1))
def test_every_probability_is_in_the_bin_whose_ends_enclose_it(probability: float) -> None:
    each = to_bins([])[bin_of(probability)]
    assert each.lower <= probability < each.upper or probability == each.upper == 1


def test_no_labels_have_empty_bins_and_no_error() -> None:
    bins = to_bins([])
    assert [(each.lower, each.upper) for each in bins] == [(k / 10, (k + 1) / 10) for k in range(BIN_COUNT)]
    assert all(each.mean_probability is None and each.accuracy is None for each in bins)
    assert expected_calibration_error(bins) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_and_error_are_those_of_the_definition(cases: list[tuple[float, bool]]) -> None:
    bins = to_bins((bin_of(probability), 1, int(right), probability) for probability, right in cases)
    probability_N, right_N = np.array(cases).T
    error = 0.0
    for each in bins:
        inside_N = (probability_N >= each.lower) & ((probability_N < each.upper) | (each.upper == 1))
        assert (each.accuracy.count if each.accuracy else 0) == inside_N.sum()
        if inside_N.any():
            assert each.accuracy is not None
            assert each.mean_probability == pytest.approx(probability_N[inside_N].mean())
            assert each.accuracy.value == pytest.approx(right_N[inside_N].mean())
            error += abs(right_N[inside_N].mean() - probability_N[inside_N].mean()) * inside_N.mean()
    assert expected_calibration_error(bins) == pytest.approx(error)
