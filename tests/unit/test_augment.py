"""Augmentation: its effects, and that they depend on the seed alone."""

import numpy as np
import pytest
import torch

from training.data.augment import augmentation, contact_sheet
from training.data.sources import derived_seed


@pytest.fixture
def canvas() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(60, 200, (8, 8, 3), np.uint8), 8, 0), 8, 1)


@pytest.mark.parametrize("kind", ["side-on", "top-down", "varied"])
def test_a_view_depends_on_the_seed_and_leaves_the_random_state_of_the_process_unchanged(
    kind: str, canvas: np.ndarray
) -> None:
    view = augmentation(kind, 48)  # type: ignore[arg-type]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (view(canvas, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_augmentation_the_view_is_that_of_validation(canvas: np.ndarray) -> None:
    assert np.array_equal(augmentation("none", 48)(canvas, 3), canvas[8:56, 8:56])


@pytest.mark.parametrize("kind", ["side-on", "top-down"])
def test_borders_are_reflected_and_not_black(kind: str) -> None:
    canvas = np.full((64, 64, 3), 128, np.uint8)
    view = augmentation(kind, 64)  # type: ignore[arg-type]
    for seed in range(60):
        assert view(canvas, seed).min() >= 128 * 0.95 * 0.95 - 2


def test_side_on_images_stay_upright_and_are_mirrored_half_of_the_time() -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[:32, :, 0] = 200  # above: red
    canvas[:, :32, 1] = 200  # left: green
    view = augmentation("side-on", 64)
    seen = [view(canvas, seed).astype(int) for seed in range(200)]
    assert all(image[:24, :, 0].mean() > image[40:, :, 0].mean() + 50 for image in seen)
    mirrored = sum(image[:, 40:, 1].mean() > image[:, :24, 1].mean() for image in seen)
    assert 70 <= mirrored <= 130


def test_varied_views_change_light_and_colour_and_stay_upright() -> None:
    canvas = np.full((64, 64, 3), (120, 60, 60), np.uint8)
    canvas[:32] = (60, 60, 120)
    view = augmentation("varied", 48)
    seen = [view(canvas, seed).astype(int) for seed in range(200)]
    mean = np.array([image.mean() for image in seen])
    assert mean.min() < 80 * 0.85
    assert mean.max() > 80 * 1.15
    colour = [np.abs(image[..., 0] - image[..., 2]).mean() for image in seen]
    assert min(colour) < 15 < 60 < max(colour)
    assert all(image[:8, :, 2].mean() > image[-8:, :, 2].mean() - 12 for image in seen)


def test_top_down_images_are_turned_and_mirrored_in_all_eight_ways() -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)
    canvas[:32, :, 0] = 200
    canvas[:, :32, 1] = 200
    canvas[:32, :32, 2] = 200
    view = augmentation("top-down", 64)
    ways = set()
    for seed in range(200):
        image = view(canvas, seed).astype(int)
        above = image[:24].mean((0, 1)) - image[40:].mean((0, 1))
        left = image[:, :24].mean((0, 1)) - image[:, 40:].mean((0, 1))
        red_along = ("above", above[0] > 0) if abs(above[0]) > abs(left[0]) else ("left", left[0] > 0)
        green_along = ("above", above[1] > 0) if abs(above[1]) > abs(left[1]) else ("left", left[1] > 0)
        ways.add((red_along, green_along))
    assert len(ways) == 8


def test_a_contact_sheet_holds_sixteen_different_views(canvas: np.ndarray) -> None:
    sheet = np.asarray(contact_sheet(canvas, "side-on", 32, seed=0))
    assert sheet.shape == (128, 128, 3)
    tiles = {sheet[y : y + 32, x : x + 32].tobytes() for y in range(0, 128, 32) for x in range(0, 128, 32)}
    assert len(tiles) == 16


def test_seeds_for_different_purposes_differ() -> None:
    seeds = {derived_seed(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 2) == derived_seed(1, 2)
