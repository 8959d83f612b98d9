"""Paints whole animals in their poses, the head about (0, 0)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from training.samples.drawing.canvas import Array, Canvas, Colour, Point, curve, mirrored, mixed, oval, points, tapered
from training.samples.drawing.cat_head import paint_cat_front, paint_cat_profile
from training.samples.drawing.coat import BLACK, paint_bib, paint_fur
from training.samples.drawing.dog_head import paint_dog_front, paint_dog_profile
from training.samples.drawing.sitter import Kind, Sitter

Painter: TypeAlias = Callable[[Canvas, Sitter, np.random.Generator], None]

SHADOW: Colour = (*BLACK, 70)
BUCKLE: Colour = (226, 190, 90)

SHOULDERS = mirrored(points("0,0.1 0.62,0.3 0.67,0.9 0.95,1.5 1.14,3.2 0,3.4"))
SEATED_TORSO = mirrored(points("0,0.3 0.55,0.6 0.72,1.3 0.98,2.2 1.1,3 0.9,3.5 0,3.58"))
WALKING_TORSO = points(
    "-2.75,0.7 -2.2,0.42 -1.2,0.46 -0.4,0.36 -0.05,-0.2 0.4,-0.5 0.8,0.1 0.7,0.9 0.3,1.7 "
    "-0.9,1.55 -1.8,1.5 -2.6,1.5 -2.95,1.2"
)
LYING_BACK = points("-0.4,0.6 0.6,0.22 1.6,0.2 2.5,0.55 2.95,1.3 2.7,1.95 1,2.05 -0.6,2 -0.8,1.2")
LYING_CHEST = points("-0.65,0.4 0.65,0.4 0.85,1.4 0.6,2 -0.6,2 -0.85,1.4")


@dataclass(frozen=True)
class Build:
    """The body of a kind; lengths in units."""

    front: Painter
    profile: Painter
    breadth: float
    """Breadth of the body relative to the outlines above."""
    leg_width: float
    standing_height: float
    """From the middle of the head down to the ground, walking."""
    tail_widths: tuple[float, float]
    """At the root and at the tip."""
    seated_tail: Array
    walking_tail: Array
    lying_tail: Array


BUILDS: dict[Kind, Build] = {
    "cat": Build(
        front=paint_cat_front,
        profile=paint_cat_profile,
        breadth=0.95,
        leg_width=0.22,
        standing_height=2.5,
        tail_widths=(0.32, 0.17),
        seated_tail=points("0,0.2 0.75,0.2 1,-0.4 0.75,-1 1,-1.5"),
        walking_tail=points("0.2,0.1 -0.5,0.1 -0.85,-0.5 -0.8,-1.2 -0.75,-1.7"),
        lying_tail=points("2.7,1.5 3.2,1.7 3,2.1 2,2.12 1.25,2"),
    ),
    "dog": Build(
        front=paint_dog_front,
        profile=paint_dog_profile,
        breadth=1.1,
        leg_width=0.27,
        standing_height=2.8,
        tail_widths=(0.42, 0.14),
        seated_tail=points("0,0.1 0.6,0 0.95,-0.45 0.95,-0.9"),
        walking_tail=points("0.3,0.2 -0.35,-0.1 -0.7,-0.55 -0.65,-1.05"),
        lying_tail=points("2.6,1.4 3.2,1.5 3.5,1.2 3.6,0.7"),
    ),
}


@dataclass(frozen=True)
class Pose:
    """A pose of an animal."""

    paint: Painter
    low: Point
    """The left and top edge of the animal, in units."""
    high: Point
    """The right and bottom edge of the animal, in units."""
    stands: bool
    """Whether its feet are visible; a portrait is cut off by the lower edge of the image instead."""


def _paint_portrait(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    build = BUILDS[sitter.kind]
    chest = curve(SHOULDERS * (sitter.width * build.breadth, 1))
    paint_fur(canvas, chest, sitter.coat, rng, "body")
    paint_bib(canvas.placed((0, 1.6), scale=1.6), sitter.coat)
    _paint_collar(canvas.placed((0, 1.08)), sitter, 0.68 * build.breadth)
    build.front(canvas.placed((0, 0), angle_deg=rng.uniform(-16, 16)), sitter, rng)


def _paint_seated(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    coat, build = sitter.coat, BUILDS[sitter.kind]
    wide = sitter.width * build.breadth
    canvas.fill(oval((0, 3.6), (1.7 * wide, 0.22)), SHADOW)
    side = 1 if rng.random() < 0.5 else -1
    _paint_tail(canvas.placed((side * 0.8 * wide, 3.2), flip=side < 0), sitter, build.seated_tail, rng)
    paint_fur(canvas, curve(SEATED_TORSO * (wide, 1)), coat, rng, "body")
    for side in (-1, 1):
        paint_fur(canvas, oval((side * 0.86 * wide, 2.9), (0.46, 0.66), side * -14), coat, rng, "body")
        paint_fur(canvas, oval((side * 0.98 * wide, 3.46), (0.42, 0.19)), coat, rng, "paw")
    for side in (-1, 1):
        _paint_leg(canvas, sitter, rng, (side * 0.36, 1.8), (side * 0.36, 3.45))
        _paint_paw(canvas.placed((side * 0.37, 3.5)), sitter, rng)
    paint_bib(canvas.placed((0, 1.5), scale=1.4), coat)
    _paint_collar(canvas.placed((0, 0.98)), sitter, 0.62)
    build.front(canvas.placed((0, 0), angle_deg=rng.uniform(-14, 14)), sitter, rng)


def _paint_walking(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    build = BUILDS[sitter.kind]
    ground, stride = build.standing_height, rng.uniform(0.1, 0.5)
    canvas.fill(oval((-1.2, ground + 0.05), (2.3, 0.2)), SHADOW)
    for x, swing in ((-2.3, stride), (0.05, -stride)):
        _paint_leg(canvas, sitter, rng, (x, 1.2), (x + swing, ground - 0.06), shade=0.3)
        _paint_paw(canvas.placed((x + swing + 0.1, ground - 0.06), scale=0.8), sitter, rng, shade=0.3)
    _paint_tail(canvas.placed((-2.75, 0.75)), sitter, build.walking_tail, rng)
    paint_fur(canvas, curve(WALKING_TORSO), sitter.coat, rng, "body")
    for x, swing in ((-2.45, -stride), (0.05, stride)):
        _paint_leg(canvas, sitter, rng, (x, 1.1), (x + swing, ground))
        _paint_paw(canvas.placed((x + swing + 0.1, ground), scale=0.8), sitter, rng)
    if rng.random() < 0.5:
        _paint_collar(canvas.placed((0.36, 0.42), angle_deg=24), sitter, 0.52)
        build.profile(canvas.placed((0.62, -0.45), angle_deg=rng.uniform(-10, 12)), sitter, rng)
    else:
        _paint_collar(canvas.placed((0.4, 0.5), angle_deg=10), sitter, 0.52)
        build.front(canvas.placed((0.5, -0.5), angle_deg=rng.uniform(-12, 12)), sitter, rng)


def _paint_lying(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    coat, build = sitter.coat, BUILDS[sitter.kind]
    canvas.fill(oval((0.9, 2.05), (2.6, 0.22)), SHADOW)
    paint_fur(canvas, curve(LYING_BACK), coat, rng, "body")
    paint_fur(canvas, oval((2.1, 1.5), (0.72, 0.58), -15), coat, rng, "body")
    paint_fur(canvas, oval((1.75, 1.98), (0.5, 0.19)), coat, rng, "paw")
    _paint_tail(canvas, sitter, build.lying_tail, rng)
    paint_fur(canvas, curve(LYING_CHEST * (build.breadth, 1)), coat, rng, "body")
    for side in (-1, 1):
        _paint_leg(canvas, sitter, rng, (side * 0.5, 1.4), (side * 0.56, 2.05))
        _paint_paw(canvas.placed((side * 0.56, 2.12)), sitter, rng)
    paint_bib(canvas.placed((0, 1.15), scale=1.1), coat)
    _paint_collar(canvas.placed((0, 0.98)), sitter, 0.68)
    build.front(canvas.placed((0, 0), angle_deg=rng.uniform(-16, 16)), sitter, rng)


def _paint_tail(canvas: Canvas, sitter: Sitter, spine: Array, rng: np.random.Generator) -> None:
    wag = np.linspace(0, 1, len(spine))[:, None] ** 2 * rng.uniform(-0.25, 0.25, size=2)
    paint_fur(canvas, tapered(spine + wag, *BUILDS[sitter.kind].tail_widths), sitter.coat, rng, "tail", seam=True)


def _paint_leg(
    canvas: Canvas, sitter: Sitter, rng: np.random.Generator, hip: Point, foot: Point, *, shade: float = 0.0
) -> None:
    width = BUILDS[sitter.kind].leg_width
    knee = (hip[0] + (foot[0] - hip[0]) * 0.3, (hip[1] + foot[1]) / 2)
    leg = tapered(np.array([hip, knee, foot]), width * 2.4, width * 1.7)
    paint_fur(canvas, leg, sitter.coat, rng, "leg", shade=shade, seam=True)


def _paint_paw(canvas: Canvas, sitter: Sitter, rng: np.random.Generator, *, shade: float = 0.0) -> None:
    width = BUILDS[sitter.kind].leg_width
    paint_fur(canvas, oval((0, 0), (width * 1.35, width * 0.8)), sitter.coat, rng, "paw", shade=shade)
    for x in (-0.4, 0.4):
        canvas.line(np.array([(x * width, 0.1 * width), (x * width, 0.7 * width)]), sitter.coat.edge, 0.03)


def _paint_collar(canvas: Canvas, sitter: Sitter, half_width: float) -> None:
    if sitter.collar is None:
        return
    band = curve(np.array([(-half_width, -0.12), (0, 0.06), (half_width, -0.12)]), closed=False)
    canvas.line(band, mixed(sitter.collar, BLACK, 0.5), 0.24)
    canvas.line(band, sitter.collar, 0.18)
    canvas.shape(oval((0, 0.24), (0.12, 0.12)), BUCKLE, mixed(BUCKLE, BLACK, 0.5), 0.03)


POSES: tuple[tuple[Pose, float], ...] = (  # pose, probability
    (Pose(_paint_portrait, low=(-1.35, -1.6), high=(1.35, 1.9), stands=False), 0.4),
    (Pose(_paint_seated, low=(-1.9, -1.6), high=(1.9, 3.8), stands=True), 0.25),
    (Pose(_paint_walking, low=(-3.8, -2.0), high=(2.1, 3.0), stands=True), 0.2),
    (Pose(_paint_lying, low=(-1.4, -1.6), high=(3.9, 2.35), stands=True), 0.15),
)
