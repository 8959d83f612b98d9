"""Drawn portraits of cats and dogs.

They exist so that everything can be tried without images; what a network learns from them does not carry over to
photographs. Both kinds draw their colours, coat patterns, backdrops and sizes from the same distributions, so that only
the animal's shape tells which it is.
"""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np
from PIL import Image

from training.samples.backdrops import backdrop, relight
from training.samples.canvas import Canvas, Colour, Outline, curve, mirrored, mix, oval, points

Kind: TypeAlias = Literal["cat", "dog"]

SHORT_SIDE_PX = (240, 480)
MAX_RATIO = 4 / 3
OVERSAMPLING = 2
LOW, HIGH = np.array([-1.35, -1.7]), np.array([1.35, 1.9])
"""The edges of a portrait, in units."""

BLACK: Colour = (22, 20, 22)
WHITE: Colour = (250, 248, 244)
PINK: Colour = (226, 150, 150)
COATS: tuple[tuple[Colour, Colour], ...] = (  # base, markings
    ((216, 142, 72), (160, 88, 36)),  # ginger
    ((150, 146, 142), (84, 80, 80)),  # grey
    ((66, 62, 64), (32, 30, 34)),  # black
    ((146, 106, 74), (84, 58, 40)),  # brown
    ((232, 214, 182), (150, 112, 80)),  # cream
    ((244, 240, 232), (120, 96, 78)),  # white with brown
    ((240, 238, 236), (62, 58, 60)),  # white with black
    ((112, 72, 50), (62, 38, 28)),  # chocolate
)
PATTERNS = ("plain", "stripes", "spots", "patches")
EYES: tuple[Colour, ...] = ((150, 178, 74), (214, 168, 52), (96, 158, 190), (140, 92, 44))

SHOULDERS = mirrored(points("0,0.1 0.62,0.3 0.67,0.9 0.95,1.5 1.14,3.2 0,3.4"))
HEADS: dict[Kind, Outline] = {
    "cat": mirrored(points("0,-0.8 0.5,-0.76 0.93,-0.35 1.1,0.2 0.8,0.62 0.4,0.82 0,0.86")),
    "dog": mirrored(points("0,-0.92 0.48,-0.86 0.8,-0.45 0.84,0.1 0.66,0.6 0.4,0.92 0,1")),
}
CAT_EAR = points("-0.34,0.05 -0.2,-0.35 0.18,-0.96 0.26,-0.96 0.36,-0.7 0.48,0.35")
CAT_INNER_EAR = points("-0.16,0 0.21,-0.74 0.36,0.2")
CAT_LIDS = points("-0.24,0.05 -0.02,-0.19 0.24,-0.05 0.02,0.17")
DOG_FLOPPY_EAR = points("-0.15,-0.1 0.25,-0.14 0.5,0.2 0.62,0.78 0.42,1.16 0.16,0.9 0.1,0.38")
DOG_ERECT_EAR = points("-0.3,0 -0.16,-0.5 0.12,-0.95 0.32,-0.6 0.36,0.25")
DOG_MUZZLE = mirrored(points("0,-0.38 0.28,-0.28 0.42,0.06 0.5,0.32 0.28,0.45 0,0.36"))
DOG_NOSE = mirrored(points("0,-0.16 0.22,-0.12 0.24,0.02 0.1,0.14 0,0.17"))
DOG_TONGUE = mirrored(points("0,0.7 0.17,0.75 0.19,1.2 0,1.36"))


@dataclass(frozen=True)
class Animal:
    """One cat or dog, with all that varies."""

    base: Colour
    mark: Colour
    """Colour of stripes, spots and patches."""
    pattern: str
    """One of PATTERNS."""
    eye: Colour
    ear_size: float
    """1 for an average animal of its kind, as `width`."""
    width: float
    turn: float
    """How far the nose is turned aside, in units; above 0 to the right."""
    option: bool
    """A cat with wide pupils, a dog with its tongue out."""
    erect_ears: bool
    """Whether a dog's ears are erect."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """An animal whose every property is drawn from `rng`."""
        base, mark = COATS[int(rng.integers(len(COATS)))]
        return cls(
            base=base,
            mark=mark,
            pattern=str(rng.choice(PATTERNS)),
            eye=EYES[int(rng.integers(len(EYES)))],
            ear_size=rng.uniform(0.85, 1.2),
            width=rng.uniform(0.92, 1.1),
            turn=rng.uniform(-0.2, 0.2),
            option=rng.random() < 0.5,
            erect_ears=rng.random() < 0.25,
        )

    @property
    def edge(self) -> Colour:
        """The colour of outlines."""
        return mix(self.mark, BLACK, 0.55)

    @property
    def muzzle(self) -> Colour:
        """The colour around nose and mouth."""
        return mix(self.base, WHITE, 0.5)


def draw(kind: Kind, rng: np.random.Generator) -> Image.Image:
    """One portrait of a cat or a dog, RGB, sides of 240 to 640 px; all that varies is drawn from `rng`."""
    short_px = int(rng.integers(*SHORT_SIDE_PX, endpoint=True))
    long_px = round(short_px * rng.uniform(1, MAX_RATIO))
    size_px = (long_px, short_px) if rng.random() < 0.6 else (short_px, long_px)
    large_px = (size_px[0] * OVERSAMPLING, size_px[1] * OVERSAMPLING)
    scene = backdrop(size_px, rng).resize(large_px, Image.Resampling.BILINEAR)
    px_per_unit = float((np.array(large_px) / (HIGH - LOW)).min()) * rng.uniform(0.3, 1.0)
    spare_px = np.array(large_px) - px_per_unit * (HIGH - LOW)
    origin_px = spare_px * (rng.uniform(0, 1), 1.0) - LOW * px_per_unit
    canvas = Canvas(scene, np.diag([px_per_unit, px_per_unit]), origin_px)
    animal = Animal.random(rng)
    _paint_fur(canvas, curve(SHOULDERS * (animal.width, 1)), animal, rng)
    head = canvas.placed((0, 0), angle_deg=rng.uniform(-16, 16))
    (_paint_cat if kind == "cat" else _paint_dog)(head, animal, rng)
    return relight(scene.reduce(OVERSAMPLING), rng)


def _paint_fur(canvas: Canvas, outline: Outline, animal: Animal, rng: np.random.Generator) -> None:
    """Fill an outline with the animal's coat."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    with canvas.inside(outline) as inner:
        inner.fill(outline, animal.base)
        if animal.pattern == "stripes":
            for x in np.arange(low[0] + 0.1, high[0], 0.3):
                bend = rng.uniform(-0.1, 0.1)
                inner.line(np.array([(x, low[1]), (x + bend, low[1] + 0.4 * (high - low)[1])]), animal.mark, 0.1)
        for _ in range({"spots": 14, "patches": 3}.get(animal.pattern, 0)):
            radii = rng.uniform(0.05, 0.13, 2) if animal.pattern == "spots" else rng.uniform(0.2, 0.45, 2)
            x, y = rng.uniform(low, high)
            inner.fill(oval((x, y), (radii[0], radii[1])), animal.mark)
        inner.fill(oval(((low + high)[0] / 2, high[1]), ((high - low)[0] * 0.7, 0.3)), (*BLACK, 34))
    canvas.line(outline, animal.edge, 0.045, closed=True)


def _paint_cat(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> None:
    turn, size = animal.turn, (1, animal.ear_size)
    for side in (-1, 1):
        ear = canvas.placed((side * 0.6 - turn * 0.3, -0.55), flip=side < 0)
        _paint_fur(ear, CAT_EAR * size, animal, rng)
        ear.fill(CAT_INNER_EAR * size, mix(PINK, animal.base, 0.35))
    _paint_fur(canvas, curve(HEADS["cat"] * (animal.width, 1)), animal, rng)
    for side in (-1, 1):
        eye = canvas.placed((side * 0.43 + turn * 0.7, -0.05), flip=side < 0)
        eye.shape(curve(CAT_LIDS), animal.eye, BLACK, 0.06)
        eye.fill(oval((0, 0), (0.09 if animal.option else 0.045, 0.16)), BLACK)
        canvas.fill(oval((side * 0.19 + turn, 0.48), (0.26, 0.19)), animal.muzzle)
    canvas.shape(points("-0.11,0.25 0.11,0.25 0,0.38") + (turn, 0), PINK, animal.edge, 0.025)
    mouth = points("-0.25,0.52 -0.12,0.58 0,0.5 0.12,0.58 0.25,0.52") + (turn, 0)
    canvas.line(curve(mouth, closed=False), animal.edge, 0.03)
    for side in (-1, 1):
        for rise in (-0.22, 0.0, 0.2):
            path = np.array([(0.28, 0.46 + rise * 0.2), (0.8, 0.43 + rise * 0.7), (1.3, 0.52 + rise * 1.3)])
            canvas.line(curve(path * (side, 1) + (turn, 0), closed=False), mix(WHITE, animal.edge, 0.3), 0.022)


def _paint_dog(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> None:
    turn, size = animal.turn * 1.2, (1, animal.ear_size)
    head = curve(HEADS["dog"] * (animal.width, 1))
    if not animal.erect_ears:
        _paint_fur(canvas, head, animal, rng)
    for side in (-1, 1):
        ear = canvas.placed((side * 0.6 - turn * 0.2, -0.65), flip=side < 0)
        _paint_fur(ear, curve((DOG_ERECT_EAR if animal.erect_ears else DOG_FLOPPY_EAR) * size), animal, rng)
    if animal.erect_ears:
        _paint_fur(canvas, head, animal, rng)
    for side in (-1, 1):
        eye = canvas.placed((side * 0.36 + turn * 0.7, -0.18))
        eye.shape(oval((0, 0), (0.15, 0.155)), animal.eye, BLACK, 0.055)
        eye.fill(oval((0, 0.01), (0.09, 0.1)), BLACK)
    snout = canvas.placed((turn, 0))
    if animal.option:
        snout.shape(curve(DOG_TONGUE), PINK, mix(PINK, BLACK, 0.4), 0.03)
    snout.shape(curve(DOG_MUZZLE + (0, 0.45)), animal.muzzle, mix(animal.muzzle, BLACK, 0.35), 0.03)
    snout.fill(curve(DOG_NOSE + (0, 0.25)), BLACK)
    snout.line(points("0,0.4 0,0.67"), animal.edge, 0.04)
    lips = points("-0.42,0.61 -0.2,0.77 0,0.67 0.2,0.77 0.42,0.61")
    snout.line(curve(lips, closed=False), animal.edge, 0.04)
