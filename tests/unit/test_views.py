"""The views of test-time augmentation: a fixed list, the same for every image."""

import numpy as np
import pytest

from serving.image.preprocess import Preprocess
from serving.image.views import MAX_SHIFT, MAX_VIEWS, MAX_ZOOM, VIEWS, make_views
from tests.support.images import encoded, sample_image

CANVAS = Preprocess(resize=64, crop=56).canvas(encoded(sample_image(), "PNG"))


def test_view_0_is_the_centre_and_view_1_its_mirror() -> None:
    first, second = make_views(CANVAS, 56, count=2)
    np.testing.assert_array_equal(first, CANVAS[4:60, 4:60])
    np.testing.assert_array_equal(second, first[:, ::-1])


def test_v_views_are_the_first_v_of_more_views() -> None:
    many = make_views(CANVAS, 56, count=8)
    for count in range(1, 8):
        np.testing.assert_array_equal(make_views(CANVAS, 56, count=count), many[:count])
    np.testing.assert_array_equal(make_views(CANVAS, 56, first=3, count=4), many[3:7])


def test_views_differ_but_show_the_same_image() -> None:
    views = make_views(CANVAS, 56, count=MAX_VIEWS).astype(int)
    assert len({view.tobytes() for view in views}) == MAX_VIEWS
    unmirrored = np.stack([view[:, ::-1] if spec.mirror else view for view, spec in zip(views, VIEWS, strict=True)])
    shrunk = unmirrored.reshape(MAX_VIEWS, 7, 8, 7, 8, 3).mean((2, 4))
    assert np.abs(shrunk - shrunk[0]).mean((1, 2, 3)).max() < 45


def test_views_stay_within_their_ranges_and_fill_them() -> None:
    others = VIEWS[2:]
    assert all(1 <= view.zoom <= MAX_ZOOM for view in others)
    assert all(max(abs(view.shift_x), abs(view.shift_y)) <= MAX_SHIFT for view in others)
    assert max(view.degrees for view in others) > 6
    assert min(view.degrees for view in others) < -6
    assert [view.mirror for view in VIEWS[:6]] == [False, True] * 3


def test_a_canvas_may_have_no_margin() -> None:
    assert make_views(CANVAS, 64, count=6).shape == (6, 64, 64, 3)


@pytest.mark.parametrize(("first", "count"), [(0, 0), (-1, 1), (0, MAX_VIEWS + 1), (MAX_VIEWS, 1)])
def test_views_outside_the_list_are_rejected(first: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"there are views 0 to {MAX_VIEWS - 1}"):
        make_views(CANVAS, 56, first=first, count=count)
