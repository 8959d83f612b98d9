"""The confusion matrix and its rates, against scikit-learn and published intervals."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from serving.comparison.proportions import Rate, wilson
from serving.statistics.confusion import MAX_TOTAL, ConfusionMatrix

CATS_AND_DOGS = ("cat", "dog")


def class_names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """A number of classes, and labels and predictions of 1 to 40 cases."""
    class_count = draw(st.integers(1, 6))
    index = st.integers(0, class_count - 1)
    pairs = draw(st.lists(st.tuples(index, index), min_size=1, max_size=40))
    return class_count, [actual for actual, _ in pairs], [predicted for _, predicted in pairs]


@given(cases())
def test_counts_and_rates_agree_with_scikit_learn(case: tuple[int, list[int], list[int]]) -> None:
    class_count, actual, predicted = case
    every = list(range(class_count))
    matrix = ConfusionMatrix.from_pairs(class_names(class_count), actual, predicted)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single label
        expected_KK = metrics.confusion_matrix(actual, predicted, labels=every)
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            actual, predicted, labels=every, zero_division=np.nan
        )
        matthews = metrics.matthews_corrcoef(actual, predicted)

    np.testing.assert_array_equal(matrix.counts_KK, expected_KK)
    assert matrix.total == len(actual)
    accuracy = matrix.accuracy()
    assert accuracy is not None
    assert accuracy.value == pytest.approx(metrics.accuracy_score(actual, predicted))
    assert accuracy.count == len(actual)
    for k in every:
        assert_same(value_of(matrix.precision(k)), precision[k])
        assert_same(value_of(matrix.recall(k)), recall[k])
        assert_same(matrix.f1(k), f1[k])
    if len(set(actual)) == 1 or len(set(predicted)) == 1:
        assert matrix.matthews() is None
    else:
        assert matrix.matthews() == pytest.approx(matthews, abs=1e-12)


def value_of(rate: Rate | None) -> float | None:
    return None if rate is None else rate.value


def assert_same(ours: float | None, theirs: float) -> None:
    """scikit-learn says NaN where a rate has no cases."""
    if math.isnan(theirs):
        assert ours is None
    else:
        assert ours == pytest.approx(theirs)


def test_rows_are_labels_and_columns_predictions() -> None:
    matrix = ConfusionMatrix.from_pairs(CATS_AND_DOGS, actual_indices=[0, 0, 0, 1], predicted_indices=[0, 1, 1, 1])

    assert matrix.counts_KK.tolist() == [[1, 2], [0, 1]]
    assert value_of(matrix.precision(1)) == pytest.approx(1 / 3)
    assert value_of(matrix.recall(0)) == pytest.approx(1 / 3)


def test_an_empty_matrix_has_no_rates() -> None:
    matrix = ConfusionMatrix.from_pairs(CATS_AND_DOGS, [], [])

    assert matrix.total == 0
    assert matrix.accuracy() is matrix.precision(0) is matrix.recall(1) is matrix.f1(0) is matrix.matthews() is None


@pytest.mark.parametrize(
    ("successes", "count", "lower", "upper"),
    [
        # Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # by hand: (1 + z^2 / 2 -+ z sqrt(0 + z^2 / 4)) / (1 + z^2), z = 1.96
        (1, 1, 0.2065, 1.0000),
    ],
)
def test_intervals_are_the_published_ones(successes: int, count: int, lower: float, upper: float) -> None:
    rate = wilson(successes, count)

    assert rate.value == pytest.approx(successes / count)
    assert (rate.lower, rate.upper) == (pytest.approx(lower, abs=5e-5), pytest.approx(upper, abs=5e-5))


@given(st.integers(1, 2**62).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_intervals_enclose_the_proportion_and_solve_the_score_equation(case: tuple[int, int]) -> None:
    successes, count = case
    rate = wilson(successes, count)

    assert 0.0 <= rate.lower <= rate.value <= rate.upper <= 1.0
    assert rate.lower == 0.0 or successes > 0
    assert rate.upper == 1.0 or successes < count
    for end in (rate.lower, rate.upper):  # the ends are where |p - end| = z sqrt(end (1 - end) / n)
        z = 1.959963984540054
        assert abs(rate.value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count), rel=1e-3, abs=1e-9)


def test_intervals_take_numpy_integers_without_overflow() -> None:
    assert wilson(np.int64(2**61), np.int64(2**62)) == wilson(2**61, 2**62)  # type: ignore[arg-type]


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (2, 1), (-1, 5), (0, -1)])
def test_impossible_proportions_are_rejected(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match="cases|at least 1 case"):
        wilson(successes, count)


def test_big_counts_stay_exact() -> None:
    """The correlation is unchanged when all counts are multiplied, though their squares leave 64 bits."""
    small_KK = np.array([[90, 7, 3], [11, 80, 9], [2, 5, 93]])
    small = ConfusionMatrix(class_names(3), small_KK)
    big = ConfusionMatrix(class_names(3), small_KK * 10**15)

    assert big.total == 300 * 10**15
    assert big.matthews() == small.matthews()
    assert big.f1(1) == small.f1(1)
    assert value_of(big.accuracy()) == value_of(small.accuracy())


def test_a_correlation_that_cancels_in_float64_is_found() -> None:
    """Predictions that are independent of the labels but for one case among 10^18."""
    half = 10**9 // 2
    counts_KK = np.array([[half * half + 1, half * half], [half * half, half * half]])

    assert ConfusionMatrix(CATS_AND_DOGS, counts_KK).matthews() == pytest.approx(1 / (4 * half * half), rel=1e-6)


@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_the_order_of_the_classes_does_not_matter(order: list[int], seed: int) -> None:
    counts_KK = np.random.default_rng(seed).integers(0, 50, (5, 5))
    matrix = ConfusionMatrix(class_names(5), counts_KK)
    shuffled = ConfusionMatrix(class_names(5), counts_KK[np.ix_(order, order)])

    assert shuffled.accuracy() == matrix.accuracy()
    assert shuffled.matthews() == matrix.matthews()
    assert [shuffled.f1(new) for new in range(5)] == [matrix.f1(old) for old in order]


def test_thousands_of_classes_are_counted() -> None:
    count = 3_000
    rng = np.random.default_rng(0)
    actual, predicted = rng.integers(0, count, (2, 50_000))
    matrix = ConfusionMatrix.from_pairs(class_names(count), actual, predicted)

    assert matrix.total == 50_000
    np.testing.assert_array_equal(matrix.actual_K, np.bincount(actual, minlength=count))
    np.testing.assert_array_equal(matrix.predicted_K, np.bincount(predicted, minlength=count))
    assert matrix.counts_KK[actual[0], predicted[0]] >= 1


def test_small_integer_types_do_not_wrap() -> None:
    indices = np.full(300, 249, np.uint8)

    assert ConfusionMatrix.from_pairs(class_names(250), indices, indices).counts_KK[249, 249] == 300


def test_a_matrix_cannot_be_changed_afterwards() -> None:
    counts_KK = np.array([[1, 2], [3, 4]])
    matrix = ConfusionMatrix(CATS_AND_DOGS, counts_KK)
    counts_KK[0, 0] = 100

    assert matrix.counts_KK[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        matrix.counts_KK[0, 0] = 100


def test_matrices_are_equal_when_classes_and_counts_are() -> None:
    matrix = ConfusionMatrix(CATS_AND_DOGS, np.array([[1, 2], [3, 4]]))

    assert matrix == ConfusionMatrix.from_pairs(CATS_AND_DOGS, [0] * 3 + [1] * 7, [0, 1, 1, 0, 0, 0, 1, 1, 1, 1])
    assert matrix != ConfusionMatrix(("dog", "cat"), matrix.counts_KK)
    assert matrix != ConfusionMatrix(CATS_AND_DOGS, np.array([[1, 2], [3, 5]]))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2, 3], [4, 5, 6]], r"shape \[2, 3\].*\[2, 2\]"),
        ([1, 2], r"shape \[2\]"),
        ([[1, 2], [-3, 4]], r"counts\[1, 0\] is -3"),
        ([[1.0, 2.0], [3.0, 4.0]], "float64"),
        ([[MAX_TOTAL // 2, MAX_TOTAL // 2], [0, 0]], r"2\^62"),
    ],
)
def test_invalid_counts_are_rejected(counts: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(CATS_AND_DOGS, np.array(counts))


@pytest.mark.parametrize(
    ("actual", "predicted", "message"),
    [
        ([0, 1, 2], [0, 0, 0], r"actual_indices\[2\] is 2; with 2 classes it must be 0 to 1"),
        ([0, 1], [0, -1], r"predicted_indices\[1\] is -1"),
        ([0, 1], [0], "2 actual_indices and 1 predicted_indices"),
        ([0.5], [0], "actual_indices is float64"),
        ([[0, 1]], [[0, 1]], r"shape \[1, 2\]"),
    ],
)
def test_invalid_pairs_are_rejected(actual: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix.from_pairs(CATS_AND_DOGS, actual, predicted)
