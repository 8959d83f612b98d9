"""Shifted copies of images."""

import numpy as np
import pytest

from training.data.augment import augmentation
from training.data.shifts import SHIFTS, Shift, shifted


@pytest.fixture
def view() -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.integers(40, 200, (8, 8, 3), np.uint8)
    noise = rng.integers(0, 50, (64, 64, 3), np.uint8)
    return np.repeat(np.repeat(low, 8, 0), 8, 1) + noise


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shift_changes_pixels_but_not_what_is_shown(kind: Shift, view: np.ndarray) -> None:
    copy = shifted(view, kind, 5)
    assert copy.shape == view.shape
    assert copy.dtype == np.uint8
    assert np.abs(copy.astype(int) - view).mean() > 2
    blocks = [each.reshape(8, 8, 8, 8, 3).mean((1, 3)).ravel() for each in (view.astype(float), copy.astype(float))]
    assert np.corrcoef(*blocks)[0, 1] > 0.8
    assert np.array_equal(copy, shifted(view, kind, 5))


def test_only_the_colour_depends_on_the_seed(view: np.ndarray) -> None:
    for kind in SHIFTS:
        same = np.array_equal(shifted(view, kind, 0), shifted(view, kind, 1))
        assert same == (kind != "colour")


def test_the_seed_of_a_shifted_view_chooses_the_shift() -> None:
    canvas = np.random.default_rng(1).integers(0, 255, (72, 72, 3), np.uint8)
    view = augmentation("shifted", 64)
    for seed in range(8):
        assert np.array_equal(view(canvas, seed), shifted(canvas[4:68, 4:68], SHIFTS[seed % 4], seed))
