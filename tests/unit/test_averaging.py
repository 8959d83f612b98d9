"""The average over views is the renormalised geometric mean, at the temperature of their number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.image.averaging import average_views, temperature_of
from training.evaluation.temperature import mean_logits, softmax

TEMPERATURES = {1: 1.5, 3: 0.9, 5: 0.8}


@given(
    arrays.arrays(np.float32, (5, 4), elements=st.floats(-20, 20, width=32)),
    st.integers(1, 5),
    st.sampled_from([0.5, 1.0, 1.5]),
)
def test_it_is_the_softmax_of_the_mean_logits_at_its_own_temperature(
    logits_VK: np.ndarray, views: int, graph: float
) -> None:
    temperatures = TEMPERATURES | {1: graph}
    served_K = average_views(softmax(logits_VK[:views], graph), temperatures)
    evaluated_NK = softmax(mean_logits(logits_VK[:views, None]), temperature_of(views, temperatures))
    np.testing.assert_allclose(served_K, evaluated_NK[0], atol=1e-5)


def test_one_view_is_not_changed() -> None:
    probabilities = np.float32([[0.1, 0.9]])
    np.testing.assert_array_equal(average_views(probabilities, TEMPERATURES), probabilities[0])


def test_many_images_are_averaged_each_by_itself() -> None:
    probabilities_NVK = np.random.default_rng(0).dirichlet(np.ones(3), (7, 3)).astype(np.float32)
    averages_NK = average_views(probabilities_NVK, TEMPERATURES)
    assert averages_NK.shape == (7, 3)
    assert averages_NK.dtype == np.float32
    for row, views_VK in enumerate(probabilities_NVK):
        np.testing.assert_array_equal(averages_NK[row], average_views(views_VK, TEMPERATURES))


@pytest.mark.parametrize(
    ("views_VK", "expected_K"),
    [
        ([[1, 0], [0, 1]], [0.5, 0.5]),
        ([[1, 0], [1, 0]], [1, 0]),
        ([[1, 0], [1, 0], [0.5, 0.5]], [1, 0]),
        ([[1e-45, 1], [0, 1]], [0, 1]),
    ],
)
def test_probabilities_that_were_rounded_to_zero_give_finite_averages(
    views_VK: list[list[float]], expected_K: list[float]
) -> None:
    average_K = average_views(np.float32(views_VK), {1: 1.0})
    np.testing.assert_allclose(average_K, expected_K, atol=1e-6)
    assert average_K.sum() == pytest.approx(1)


def test_temperatures_are_interpolated_between_numbers_of_views_and_constant_beyond() -> None:
    found = [temperature_of(views, TEMPERATURES) for views in (1, 2, 3, 4, 5, 64)]
    assert found == pytest.approx([1.5, 1.2, 0.9, 0.85, 0.8, 0.8])
    assert temperature_of(7, {1: 2.0}) == 2.0
