"""Coats: colours and patterns of fur, and how outlines are filled with them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from training.samples.drawing.canvas import Array, Canvas, Colour, curve, mixed, oval, points, tapered

Part: TypeAlias = Literal["body", "head", "leg", "paw", "ear", "tail"]

BLACK: Colour = (22, 20, 22)
WHITE: Colour = (250, 248, 244)
PINK: Colour = (226, 150, 150)
TONGUE: Colour = (226, 110, 120)

FURS: tuple[tuple[Colour, Colour], ...] = (  # base, markings
    ((216, 142, 72), (160, 88, 36)),  # ginger
    ((150, 146, 142), (84, 80, 80)),  # grey
    ((66, 62, 64), (32, 30, 34)),  # black
    ((146, 106, 74), (84, 58, 40)),  # brown
    ((232, 214, 182), (150, 112, 80)),  # cream
    ((244, 240, 232), (120, 96, 78)),  # white with brown
    ((240, 238, 236), (62, 58, 60)),  # white with black
    ((204, 168, 120), (110, 76, 48)),  # fawn
    ((116, 122, 134), (66, 70, 82)),  # blue grey
    ((112, 72, 50), (62, 38, 28)),  # chocolate
)
PATTERNS = ("plain", "tabby", "spots", "patches", "two-tone", "points")
PATTERN_PROBABILITIES = (0.2, 0.2, 0.12, 0.16, 0.2, 0.12)


@dataclass(frozen=True)
class Coat:
    """The colours of a fur and its pattern, drawn from the same ones for cats and dogs."""

    base: Colour
    mark: Colour
    """Stripes, spots and patches; with the pattern "points" also the face, ears, legs and tail."""
    pale: Colour
    """Muzzle and chest; with the pattern "two-tone" also the belly and the paws."""
    pattern: str
    """One of PATTERNS."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        base, mark = FURS[int(rng.integers(len(FURS)))]
        shift = int(rng.integers(-14, 15))
        base = tuple(min(255, max(0, channel + shift)) for channel in base)
        pattern = str(rng.choice(PATTERNS, p=PATTERN_PROBABILITIES))
        pale = WHITE if pattern == "two-tone" else mixed(base, WHITE, rng.uniform(0.25, 0.7))
        return cls(base, mark, pale, pattern)

    @property
    def edge(self) -> Colour:
        """The colour of outlines."""
        return mixed(self.mark, BLACK, 0.55)

    @property
    def muzzle(self) -> Colour:
        return mixed(self.mark, WHITE, 0.1) if self.pattern == "points" else self.pale

    def ground(self, part: Part) -> Colour:
        """The colour of a part of the animal under its markings."""
        if self.pattern == "points" and part in ("leg", "paw", "ear", "tail"):
            return self.mark
        if self.pattern == "two-tone" and part == "paw":
            return self.pale
        return self.base


def paint_fur(
    canvas: Canvas,
    outline: Array,
    coat: Coat,
    rng: np.random.Generator,
    part: Part,
    *,
    shade: float = 0.0,
    seam: bool = False,
) -> None:
    """Fill the outline with the fur of a part of the animal.

    Args:
        shade: how much darker than the rest it is, 0 to 1.
        seam: draw no line from the last point of the outline to the first, where another part adjoins.
    """
    colour = mixed(coat.ground(part), BLACK, shade)
    low, high = outline.min(axis=0), outline.max(axis=0)
    size = high - low
    canvas.fill(outline, colour)
    with canvas.inside(outline) as inner:
        if part != "paw":
            _MARKINGS[coat.pattern](inner, outline, coat, rng, part)
        _paint_hairs(inner, low, high, colour, rng)
        shadow = oval((low[0] + size[0] * 0.5, high[1] + size[1] * 0.12), (size[0] * 0.75, size[1] * 0.3))
        inner.fill(shadow, (*BLACK, 34))
    canvas.line(outline, coat.edge, 0.045, closed=not seam)


def _paint_hairs(canvas: Canvas, low: Array, high: Array, colour: Colour, rng: np.random.Generator) -> None:
    count = int(np.clip(np.prod(high - low) * 90, 20, 260))
    starts = rng.uniform(low, high, size=(count, 2))
    ends = starts + rng.normal((0, 0.07), (0.025, 0.02), size=(count, 2))
    canvas.hairs(starts, ends, [(*mixed(colour, BLACK, 0.6), 60), (*mixed(colour, WHITE, 0.5), 50)], width=0.015)


def _paint_nothing(canvas: Canvas, outline: Array, coat: Coat, rng: np.random.Generator, part: Part) -> None:
    """A coat of one colour has no markings."""


def _paint_stripes(canvas: Canvas, outline: Array, coat: Coat, rng: np.random.Generator, part: Part) -> None:
    """Stripes from both sides of an upright part and from the top of a lying one; a head has its own."""
    if part in ("head", "ear"):
        return
    low, high = outline.min(axis=0), outline.max(axis=0)
    size = high - low
    along = int(size[1] > size[0])
    across = 1 - along
    for start in np.arange(low[along] + 0.12, high[along], 0.27):
        bend, reach = rng.uniform(-0.1, 0.1), rng.uniform(0.32, 0.5) * size[across]
        for edge, inwards in ((low[across], 1), (high[across], -1))[: 1 + along]:
            end = edge + inwards * reach
            spine = np.array([(start, edge), (start + bend, (edge + end) / 2), (start, end)])
            canvas.fill(tapered(spine[:, ::-1] if along else spine, 0.12, 0.02), coat.mark)


def _paint_spots(canvas: Canvas, outline: Array, coat: Coat, rng: np.random.Generator, part: Part) -> None:
    low, high = outline.min(axis=0), outline.max(axis=0)
    for _ in range(int(np.clip(np.prod(high - low) * 5, 2, 26))):
        x, y = rng.uniform(low, high)
        radii = (rng.uniform(0.05, 0.13), rng.uniform(0.05, 0.13))
        canvas.fill(oval((x, y), radii, rng.uniform(0, 180)), coat.mark)


def _paint_patches(canvas: Canvas, outline: Array, coat: Coat, rng: np.random.Generator, part: Part) -> None:
    low, high = outline.min(axis=0), outline.max(axis=0)
    for _ in range(int(rng.integers(1, 4))):
        around = np.linspace(0, 2 * np.pi, 7, endpoint=False)
        radii = rng.uniform(0.15, 0.34, size=7) * (high - low).mean()
        knots = rng.uniform(low, high) + radii[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1)
        canvas.fill(curve(knots), coat.mark)


def _paint_underside(canvas: Canvas, outline: Array, coat: Coat, rng: np.random.Generator, part: Part) -> None:
    """A pale belly and pale feet, with a wavy border; a head has its own markings."""
    if part not in ("body", "leg"):
        return
    low, high = outline.min(axis=0), outline.max(axis=0)
    border = high[1] - rng.uniform(0.25, 0.45) * (high[1] - low[1])
    x = np.linspace(low[0] - 0.2, high[0] + 0.2, 6)
    wave = np.stack([x, border + rng.uniform(-0.08, 0.08, size=6)], axis=1)
    below = np.array([(x[-1], high[1] + 0.2), (x[0], high[1] + 0.2)])
    canvas.fill(np.concatenate([curve(wave, closed=False), below]), coat.pale)


def paint_bib(canvas: Canvas, coat: Coat) -> None:
    """The paler fur of the chest, about (0, 0) and one unit high."""
    if coat.pattern in ("two-tone", "tabby"):
        canvas.fill(curve(points("-0.4,-0.5 0.4,-0.5 0.46,0 0,0.5 -0.46,0")), coat.pale)


_MARKINGS: dict[str, Callable[[Canvas, Array, Coat, np.random.Generator, Part], None]] = {
    "plain": _paint_nothing,
    "tabby": _paint_stripes,
    "spots": _paint_spots,
    "patches": _paint_patches,
    "two-tone": _paint_underside,
    "points": _paint_nothing,
}
