"""The views of an image that test-time augmentation averages over. Training and serving use the same list.

View 0 is the centre crop. The next two show what it does not: the two ends of the long side. The two after them show
less and more of the centre. A nearly square image has hardly any ends: they change places. Later views are mirrored, or
show other parts at other scales. The list is fixed: V views are always its first V, so that an image always gets the
same prediction. The first five were chosen by cross-validation (docs/test-time-augmentation.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.image.resize import Box, ResizableImage

VIEWS_VERSION = 2
"""Incremented whenever the same image would have other views from view 1 on."""
MAX_VIEWS = 64
MIN_LONG = 1.15
"""Least ratio of a canvas's sides from which its ends are views of their own."""

MAX_ZOOM_CHANGE = 0.2
"""Maximum change of zoom of the views after the first eight."""
_MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


@dataclass(frozen=True)
class View:
    """A square part of a canvas, resized to the crop, or the whole canvas squeezed into it."""

    along: float = 0.0
    """Position on the long side: -1 at its left or upper end, 0 in the middle, 1 at the other end."""
    across: float = 0.0
    """The same on the short side."""
    zoom: float = 1.0
    """1 shows as many pixels of the canvas as the crop has; less shows more, at most the short side."""
    squeezed: bool = False
    """The whole canvas, with its sides made equal."""
    mirror: bool = False


def _spread(index: int, dimension: int) -> float:
    """Coordinate `dimension` of point `index` of a sequence that fills [-1, 1]^3 evenly.

    Additive recurrence with the powers of 1/x, x^4 = x + 1 (the generalised golden ratio; Roberts 2018, "The
    unreasonable effectiveness of quasirandom sequences").
    """
    ratio = 1.2207440846057596
    return 2 * ((0.5 + index / ratio ** (dimension + 1)) % 1) - 1


def _list_views(*first: View) -> tuple[View, ...]:
    """The given views, and then others, every second one mirrored, up to MAX_VIEWS."""
    others = (
        View(
            along=_spread(index, 0),
            across=_spread(index, 1),
            zoom=1 + MAX_ZOOM_CHANGE * _spread(index, 2),
            mirror=index % 2 == 1,
        )
        for index in range(len(first), MAX_VIEWS)
    )
    return (*first, *others)


_ENDS, _SCALES = (View(along=-1), View(along=1)), (View(zoom=1.2), View(zoom=0.875))
_MIRRORED = (View(mirror=True), View(along=-1, mirror=True), View(along=1, mirror=True))
VIEWS = _list_views(View(), *_ENDS, *_SCALES, *_MIRRORED)
"""The views of a canvas that is clearly longer than wide, or wider than long."""
SQUARE_VIEWS = _list_views(View(), *_SCALES, *_ENDS, *_MIRRORED)
"""The views of a nearly square canvas."""


def views_of(canvas_HWC: NDArray[np.uint8]) -> tuple[View, ...]:
    """The list of views for a canvas."""
    short, long = sorted(canvas_HWC.shape[:2])
    return VIEWS if long >= MIN_LONG * short else SQUARE_VIEWS


def make_views(canvas_HWC: NDArray[np.uint8], crop: int, *, first: int = 0, count: int = 1) -> NDArray[np.uint8]:
    """Make views `first` to `first + count - 1` of a canvas.

    Args:
        canvas_HWC: uint8 `[H, W, 3]` from `Preprocess.canvas`; of the whole image for other views than view 0.
        crop: side of a view in pixels, at most the short side of the canvas.

    Returns:
        uint8 `[count, crop, crop, 3]`.

    Raises:
        ValueError: for views outside the list.
    """
    if count < 1 or first < 0 or first + count > MAX_VIEWS:
        raise ValueError(f"views {first} to {first + count - 1} do not exist; there are views 0 to {MAX_VIEWS - 1}")
    views_VHWC = np.empty((count, crop, crop, 3), np.uint8)
    for row, view in enumerate(views_of(canvas_HWC)[first : first + count]):
        views_VHWC[row] = make_view(canvas_HWC, crop, view)
    return views_VHWC


def make_view(canvas_HWC: NDArray[np.uint8], crop: int, view: View) -> NDArray[np.uint8]:
    """Make one view of a canvas, uint8 `[crop, crop, 3]`; it may share the canvas's memory."""
    height, width = canvas_HWC.shape[:2]
    box = _box(view, crop, height, width)
    if box[2:] == (crop, crop):  # the canvas's own pixels
        left, top = int(box[0]), int(box[1])
        pixels_HWC = canvas_HWC[top : top + crop, left : left + crop]
    else:
        pixels_HWC = ResizableImage(canvas_HWC.tobytes(), height, width, "bicubic").resize(box, crop, crop)
    # Pillow mirrors three times as fast as NumPy copies a negative stride
    return np.asarray(Image.fromarray(pixels_HWC).transpose(_MIRROR)) if view.mirror else pixels_HWC


def _box(view: View, crop: int, height: int, width: int) -> Box:
    """The part of a canvas that a view shows."""
    if view.squeezed:
        return 0, 0, width, height
    side = min(crop / view.zoom, height, width)
    x, y = (view.along, view.across) if width >= height else (view.across, view.along)
    return (1 + x) * (width - side) / 2, (1 + y) * (height - side) / 2, side, side
