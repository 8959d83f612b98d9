"""The views of a canvas that test-time augmentation averages over. Evaluation and serving use the same list.

View 0 is the centre crop, view 1 its mirror image; the others rotate, zoom and shift a little, every second one
mirrored. The list is fixed: V views are always its first V, so that an image always gets the same prediction.
"""

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_VIEWS = 64
MAX_DEGREES = 8.0
MAX_ZOOM = 1.12
MAX_SHIFT = 0.05
"""Largest shift, as a fraction of the crop's side."""

_MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


@dataclass(frozen=True)
class View:
    """A transform of a canvas: mirror, then rotate, zoom and shift about the centre."""

    mirror: bool = False
    degrees: float = 0.0
    zoom: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    """Shifts are fractions of the crop's side."""


def _spread(index: int, dimension: int) -> float:
    """Coordinate `dimension` of point `index` of a sequence that fills [-1, 1]^4 evenly.

    Additive recurrence with the powers of 1/x, x^5 = x + 1 (the generalised golden ratio; Roberts 2018, "The
    unreasonable effectiveness of quasirandom sequences").
    """
    ratio = 1.1673039782614187
    return 2 * ((0.5 + index / ratio ** (dimension + 1)) % 1) - 1


def _view(index: int) -> View:
    if index < 2:
        return View(mirror=index == 1)
    return View(
        mirror=index % 2 == 1,
        degrees=MAX_DEGREES * _spread(index, 0),
        zoom=1 + (MAX_ZOOM - 1) * (1 + _spread(index, 1)) / 2,
        shift_x=MAX_SHIFT * _spread(index, 2),
        shift_y=MAX_SHIFT * _spread(index, 3),
    )


VIEWS: tuple[View, ...] = tuple(_view(index) for index in range(MAX_VIEWS))


def make_views(canvas_SSC: NDArray[np.uint8], crop: int, *, first: int = 0, count: int = 1) -> NDArray[np.uint8]:
    """Make views `first` to `first + count - 1` of a canvas.

    Args:
        canvas_SSC: uint8 `[S, S, 3]` from `Preprocess.canvas`.
        crop: side of a view in pixels, at most S.

    Returns:
        uint8 `[count, crop, crop, 3]`.

    Raises:
        ValueError: for views outside the list.
    """
    if count < 1 or first < 0 or first + count > MAX_VIEWS:
        raise ValueError(f"views {first} to {first + count - 1} do not exist; there are views 0 to {MAX_VIEWS - 1}")
    views_VHWC = np.empty((count, crop, crop, 3), np.uint8)
    margin = (canvas_SSC.shape[0] - crop) // 2
    centre_HWC = canvas_SSC[margin : margin + crop, margin : margin + crop]
    border = crop // 4  # a rotation by 8 degrees and a shift by 5% reach at most 19% of the crop beyond a canvas
    padded = None
    for row, view in enumerate(VIEWS[first : first + count]):
        if view == VIEWS[0]:
            views_VHWC[row] = centre_HWC
        elif view == VIEWS[1]:
            # Pillow mirrors three times as fast as NumPy copies a negative stride
            views_VHWC[row] = np.asarray(Image.fromarray(centre_HWC).transpose(_MIRROR))
        else:
            if padded is None:
                sides = ((border, border), (border, border), (0, 0))
                padded = Image.fromarray(np.pad(canvas_SSC, sides, mode="reflect"))
            views_VHWC[row] = np.asarray(_warp(padded, crop, view))
    return views_VHWC


def _warp(padded: Image.Image, crop: int, view: View) -> Image.Image:
    """Sample a reflected canvas on a rotated, zoomed and shifted grid."""
    angle = radians(view.degrees)
    # Output (x, y), measured from the output's centre, lies at A (x, y) + (centre + shift) in the input.
    a, b = cos(angle) / view.zoom, -sin(angle) / view.zoom
    d, e = sin(angle) / view.zoom, cos(angle) / view.zoom
    if view.mirror:
        a, d = -a, -d
    centre_x = padded.width / 2 + view.shift_x * crop
    centre_y = padded.height / 2 + view.shift_y * crop
    half = crop / 2
    matrix = (a, b, centre_x - (a + b) * half, d, e, centre_y - (d + e) * half)
    return padded.transform((crop, crop), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
