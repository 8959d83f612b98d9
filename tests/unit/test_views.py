"""The views of test-time augmentation: a fixed list, the same for every image, that covers the whole of it."""

import numpy as np
import pytest
from PIL import Image

from serving.image.preprocess import Preprocess
from serving.image.views import MAX_VIEWS, MIN_LONG, SQUARE_VIEWS, VIEWS, View, make_view, make_views, views_of
from tests.support.images import encoded, sample_image

PREPROCESS = Preprocess(resize=64, crop=56)
LYING = PREPROCESS.canvas(encoded(sample_image().resize((200, 100)), "PNG"), whole=True)
STANDING = PREPROCESS.canvas(encoded(sample_image().resize((100, 200)), "PNG"), whole=True)
SQUARE = PREPROCESS.canvas(encoded(sample_image().resize((100, 104)), "PNG"), whole=True)
CANVASES = pytest.mark.parametrize("canvas", [LYING, STANDING, SQUARE], ids=["lying", "standing", "square"])


def test_view_0_is_the_centre_and_the_next_two_are_the_ends_of_the_long_side() -> None:
    assert LYING.shape == (64, 128, 3)
    centre, left, right = make_views(LYING, 56, count=3)
    np.testing.assert_array_equal(centre, LYING[4:60, 36:92])
    np.testing.assert_array_equal(left, LYING[4:60, :56])
    np.testing.assert_array_equal(right, LYING[4:60, -56:])
    _, top, bottom = make_views(STANDING, 56, count=3)
    np.testing.assert_array_equal(top, STANDING[:56, 4:60])
    np.testing.assert_array_equal(bottom, STANDING[-56:, 4:60])


def test_a_nearly_square_image_has_other_scales_instead_of_ends() -> None:
    assert views_of(SQUARE) == SQUARE_VIEWS
    assert views_of(LYING) == views_of(STANDING) == VIEWS
    assert [view.along for view in SQUARE_VIEWS[:3]] == [0, 0, 0]
    assert set(SQUARE_VIEWS[:5]) == set(VIEWS[:5])
    assert len({view.zoom for view in SQUARE_VIEWS[:3]}) == 3
    assert views_of(np.empty((100, round(100 * MIN_LONG), 3), np.uint8)) == VIEWS
    assert views_of(np.empty((100, round(100 * MIN_LONG) - 1, 3), np.uint8)) == SQUARE_VIEWS


@CANVASES
def test_v_views_are_the_first_v_of_more_views(canvas: np.ndarray) -> None:
    many = make_views(canvas, 56, count=MAX_VIEWS)
    for count in range(1, 8):
        np.testing.assert_array_equal(make_views(canvas, 56, count=count), many[:count])
    np.testing.assert_array_equal(make_views(canvas, 56, first=3, count=4), many[3:7])
    assert len({view.tobytes() for view in many}) == MAX_VIEWS


@pytest.mark.parametrize("views", [VIEWS, SQUARE_VIEWS], ids=["long", "square"])
def test_views_stay_within_the_image_and_fill_their_ranges(views: tuple[View, ...]) -> None:
    assert len(views) == len(set(views)) == MAX_VIEWS
    assert views[0] == View()
    assert all(max(abs(view.along), abs(view.across)) <= 1 for view in views)
    others = views[8:]
    assert min(view.along for view in others) < -0.8
    assert max(view.along for view in others) > 0.8
    assert {view.mirror for view in others} == {False, True}


@CANVASES
@pytest.mark.parametrize("zoom", [0.5, 0.875, 1.25])
def test_another_scale_is_that_of_pillow(canvas: np.ndarray, zoom: float) -> None:
    height, width = canvas.shape[:2]
    side = min(56 / zoom, 64)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    expected = np.asarray(Image.fromarray(canvas).resize((56, 56), Image.Resampling.BICUBIC, box), int)
    made = make_view(canvas, 56, View(zoom=zoom))
    assert is_like(made, expected)
    np.testing.assert_array_equal(make_view(canvas, 56, View(zoom=zoom, mirror=True)), made[:, ::-1])
    squeezed = np.asarray(Image.fromarray(canvas).resize((56, 56), Image.Resampling.BICUBIC), int)
    assert is_like(make_view(canvas, 56, View(squeezed=True)), squeezed)


def is_like(made: np.ndarray, expected: np.ndarray) -> bool:
    difference = np.abs(made - expected)
    return bool(difference.mean() < 0.5 and difference.max() <= 12)


@CANVASES
def test_a_canvas_may_have_no_margin(canvas: np.ndarray) -> None:
    assert make_views(canvas, 64, count=6).shape == (6, 64, 64, 3)


@pytest.mark.parametrize(("first", "count"), [(0, 0), (-1, 1), (0, MAX_VIEWS + 1), (MAX_VIEWS, 1)])
def test_views_outside_the_list_are_rejected(first: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"there are views 0 to {MAX_VIEWS - 1}"):
        make_views(LYING, 56, first=first, count=count)
