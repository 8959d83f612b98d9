"""Two versions on different images: Newcombe's hybrid score interval and Fisher's exact test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from serving.comparison.binomial import fisher_p
from serving.comparison.proportions import square_and_add, wilson
from serving.comparison.unpaired import compare_groups


@pytest.mark.parametrize(
    ("one", "other", "lower", "upper"),
    [  # Newcombe 1998, Interval Estimation for the Difference between Independent Proportions, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_interval_of_the_difference_is_newcombe_s_method_10(
    one: tuple[int, int], other: tuple[int, int], lower: float, upper: float
) -> None:
    difference = square_and_add(wilson(*other), wilson(*one))
    assert (difference.lower, difference.upper) == (pytest.approx(lower, abs=5e-5), pytest.approx(upper, abs=5e-5))


@given(
    first=st.tuples(st.integers(0, 60), st.integers(0, 60)), second=st.tuples(st.integers(0, 60), st.integers(0, 60))
)
def test_fisher_s_p_value_agrees_with_scipy(first: tuple[int, int], second: tuple[int, int]) -> None:
    expected = fisher_exact([first, second]).pvalue
    assert fisher_p(first[0], sum(first), second[0], sum(second)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "table", [((97_000, 3_000), (97_200, 2_800)), ((9_500, 500), (950_000, 50_500)), ((0, 5), (10**6, 3))]
)
def test_fisher_s_p_value_of_large_samples_agrees_with_scipy(table: tuple[tuple[int, int], tuple[int, int]]) -> None:
    first, second = table
    expected = fisher_exact(table).pvalue
    assert fisher_p(first[0], sum(first), second[0], sum(second)) == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_versions_are_compared_each_on_its_own_images() -> None:
    names = ("cat", "dog", "owl")
    columns = [np.array(column) for column in ([90, 40, 0], [100, 50, 0], [45, 19, 5], [50, 20, 5])]
    compared = compare_groups(names, *columns)
    assert compared.first is not None
    assert compared.second is not None
    assert compared.difference is not None
    assert (compared.first.count, compared.second.count) == (150, 75)
    assert compared.difference.value == pytest.approx(69 / 75 - 130 / 150)
    assert compared.p_value == pytest.approx(fisher_exact([[130, 20], [69, 6]]).pvalue)
    assert (compared.pairs, compared.sequential, compared.labels_needed) == (None, None, None)
    assert [each.name for each in compared.classes] == ["dog", "cat"]  # no owl: the first version saw none


def test_a_version_without_labels_has_no_difference() -> None:
    compared = compare_groups(("cat",), *(np.array([count]) for count in (5, 9, 0, 0)))
    assert compared.first is not None
    assert (compared.second, compared.difference, compared.p_value) == (None, None, None)
