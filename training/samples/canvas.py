"""A brush for smooth shapes on an image.

Outlines and paths are float64 arrays `[N, 2]` of points (x to the right, y downwards) in units of the animal's head: a
head is about two units wide.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, ...]
"""Red, green, blue and, where it is translucent, alpha: each 0 to 255."""
Point: TypeAlias = tuple[float, float]
Outline: TypeAlias = npt.NDArray[np.float64]

SAMPLES_PER_SEGMENT = 8
SAMPLES_PER_OVAL = 40


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` (0 to 1) of the way from the first to the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def points(text: str) -> Outline:
    """Points in SVG's notation, "x,y x,y ...", as an array `[N, 2]`."""
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


def mirrored(right_half: Outline) -> Outline:
    """A whole outline from its right half, which runs from the top of the axis x = 0 to its bottom."""
    off_axis = right_half[right_half[:, 0] != 0]
    return np.concatenate([right_half, off_axis[::-1] * (-1, 1)])


def curve(knots_N2: Outline, *, closed: bool = True) -> Outline:
    """A smooth line through the knots: a Catmull-Rom spline (Catmull and Rom, 1974)."""
    if closed:
        padded = np.concatenate([knots_N2[-1:], knots_N2, knots_N2[:2]])
    else:
        padded = np.concatenate([knots_N2[:1], knots_N2, knots_N2[-1:]])
    before, start, end, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, SAMPLES_PER_SEGMENT, endpoint=False)[None, :, None]
    segments = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    samples = segments.reshape(-1, 2)
    return samples if closed else np.concatenate([samples, knots_N2[-1:]])


def oval(centre: Point, radii: Point) -> Outline:
    """The outline of an ellipse."""
    around = np.linspace(0, 2 * np.pi, SAMPLES_PER_OVAL, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(around), centre[1] + radii[1] * np.sin(around)], axis=1)


@dataclass(frozen=True)
class Canvas:
    """An RGB image, and where the animal's units lie in it."""

    image: Image.Image
    matrix: Outline
    """Matrix from units to pixels: `[2, 2]`."""
    origin_px: Outline
    """The pixel (x, y) under the animal's (0, 0)."""

    def placed(self, at: Point, *, angle_deg: float = 0.0, flip: bool = False) -> Self:
        """The same image seen from a part of the animal: moved to `at`, turned clockwise, mirrored."""
        angle = np.deg2rad(angle_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        sides = np.diag([-1.0 if flip else 1.0, 1.0])
        return replace(self, matrix=self.matrix @ turn @ sides, origin_px=self._pixels(np.array([at]))[0])

    def fill(self, outline: Outline, colour: Colour) -> None:
        """Fill an outline."""
        self._brush().polygon(self._pixels(outline).ravel().tolist(), fill=colour)

    def line(self, path: Outline, colour: Colour, width: float, *, closed: bool = False) -> None:
        """Draw along the path with a round brush `width` units wide."""
        whole = np.concatenate([path, path[:2]]) if closed else path
        width_px = max(1, round(width * float(np.sqrt(abs(np.linalg.det(self.matrix))))))
        self._brush().line(self._pixels(whole).ravel().tolist(), fill=colour, width=width_px, joint="curve")

    def shape(self, outline: Outline, colour: Colour, edge: Colour, edge_width: float = 0.04) -> None:
        """Fill an outline and draw its edge."""
        self.fill(outline, colour)
        self.line(outline, edge, edge_width, closed=True)

    @contextmanager
    def inside(self, outline: Outline) -> Iterator[Self]:
        """A canvas whose paint stays within the outline."""
        painted, mask = self.image.copy(), Image.new("L", self.image.size, 0)
        ImageDraw.Draw(mask).polygon(self._pixels(outline).ravel().tolist(), fill=255)
        yield replace(self, image=painted)
        self.image.paste(painted, (0, 0), mask)

    def _pixels(self, points_N2: Outline) -> Outline:
        return points_N2 @ self.matrix.T + self.origin_px

    def _brush(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image, "RGBA")  # in this mode a colour's alpha blends with what is below
