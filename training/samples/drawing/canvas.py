"""Paints smooth shapes, given in the sitter's own units, on an image.

Outlines and paths are arrays of shape (points, 2), x to the right and y downwards, in units of the sitter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, ...]  # red, green, blue and, optionally, alpha: each 0 to 255
Point: TypeAlias = tuple[float, float]
Array: TypeAlias = npt.NDArray[np.float64]

SAMPLES_PER_SEGMENT = 8
SAMPLES_PER_OVAL = 40


def mixed(first: Colour, second: Colour, part: float) -> Colour:
    """The colour `part` (0 to 1) of the way from the first to the second."""
    return tuple(round(a + (b - a) * part) for a, b in zip(first, second, strict=True))


def points(text: str) -> Array:
    """Points from SVG notation, "x,y x,y ...": shape (points, 2)."""
    return np.array([[float(number) for number in pair.split(",")] for pair in text.split()])


def mirrored(right_half: Array) -> Array:
    """A whole outline from its right half, which runs from the top of the axis x = 0 to its bottom."""
    off_axis = right_half[right_half[:, 0] != 0]
    return np.concatenate([right_half, off_axis[::-1] * (-1, 1)])


def curve(knots_N2: Array, *, closed: bool = True) -> Array:
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


def oval(centre: Point, radii: Point, angle_deg: float = 0.0) -> Array:
    """The outline of an ellipse."""
    around = np.linspace(0, 2 * np.pi, SAMPLES_PER_OVAL, endpoint=False)
    angle = np.deg2rad(angle_deg)
    x, y = radii[0] * np.cos(around), radii[1] * np.sin(around)
    turned_x = centre[0] + x * np.cos(angle) - y * np.sin(angle)
    turned_y = centre[1] + x * np.sin(angle) + y * np.cos(angle)
    return np.stack([turned_x, turned_y], axis=1)


def tapered(knots_N2: Array, width: float, end_width: float) -> Array:
    """The outline of a smooth stroke through the knots that narrows from `width` to a round tip `end_width` wide.

    It begins and ends on the two sides of the stroke's start.
    """
    spine = curve(knots_N2, closed=False)
    along = np.gradient(spine, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    sideways = np.stack([-along[:, 1], along[:, 0]], axis=1)
    half = np.linspace(width, end_width, len(spine))[:, None] / 2
    around = np.linspace(np.pi / 2, -np.pi / 2, 9)[1:-1, None]
    tip = spine[-1] + half[-1] * (np.cos(around) * along[-1] + np.sin(around) * sideways[-1])
    return np.concatenate([spine + half * sideways, tip, (spine - half * sideways)[::-1]])


@dataclass(frozen=True)
class Canvas:
    """An RGB image with the position of the sitter's units in it."""

    image: Image.Image
    matrix: Array
    """From the sitter's units to pixels: shape (2, 2)."""
    origin_px: Array
    """The pixel (x, y) under the sitter's (0, 0)."""

    @property
    def px_per_unit(self) -> float:
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    def placed(self, at: Point, *, angle_deg: float = 0.0, scale: float = 1.0, flip: bool = False) -> Self:
        """The same image with other units: moved to `at`, then turned clockwise and scaled."""
        angle = np.deg2rad(angle_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        sides = np.diag([-scale if flip else scale, scale])
        return replace(self, matrix=self.matrix @ turn @ sides, origin_px=self._pixels(np.array([at]))[0])

    def fill(self, outline: Array, colour: Colour) -> None:
        self._brush().polygon(self._flat(outline), fill=colour)

    def line(self, path: Array, colour: Colour, width: float, *, closed: bool = False) -> None:
        """Draw along the path with a round brush `width` units wide."""
        whole = np.concatenate([path, path[:2]]) if closed else path
        width_px = max(1, round(width * self.px_per_unit))
        self._brush().line(self._flat(whole), fill=colour, width=width_px, joint="curve")

    def shape(self, outline: Array, colour: Colour, edge: Colour, edge_width: float = 0.05) -> None:
        self.fill(outline, colour)
        self.line(outline, edge, edge_width, closed=True)

    def hairs(self, starts_N2: Array, ends_N2: Array, colours: Sequence[Colour], width: float) -> None:
        """Draw a straight line from each start to its end, in the colours in turn."""
        brush = self._brush()
        width_px = max(1, round(width * self.px_per_unit))
        both = np.concatenate([self._pixels(starts_N2), self._pixels(ends_N2)], axis=1).tolist()
        for number, ends in enumerate(both):
            brush.line(ends, fill=colours[number % len(colours)], width=width_px)

    @contextmanager
    def inside(self, outline: Array) -> Iterator[Self]:
        """A canvas whose paint stays within the outline."""
        outline_px = self._pixels(outline)
        low = np.maximum(np.floor(outline_px.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(outline_px.max(axis=0)) + 1, self.image.size).astype(int)
        high = np.maximum(high, low + 1)
        left, top, right, bottom = (int(edge) for edge in (*low, *high))
        cut = self.image.crop((left, top, right, bottom))
        mask = Image.new("L", cut.size, 0)
        ImageDraw.Draw(mask).polygon((outline_px - low).ravel().tolist(), fill=255)
        yield replace(self, image=cut, origin_px=self.origin_px - low)
        self.image.paste(cut, (left, top), mask)

    def _pixels(self, points_N2: Array) -> Array:
        return points_N2 @ self.matrix.T + self.origin_px

    def _flat(self, points_N2: Array) -> list[float]:
        flat: list[float] = self._pixels(points_N2).ravel().tolist()
        return flat

    def _brush(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image, "RGBA")  # in this mode a colour's alpha blends with what is below
