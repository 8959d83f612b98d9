"""The sitter: the properties of one cat or dog, the same in every pose."""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from training.samples.drawing.canvas import Colour
from training.samples.drawing.coat import Coat

Kind: TypeAlias = Literal["cat", "dog"]
Ears: TypeAlias = Literal["pointed", "floppy", "erect", "folded"]

EYES: dict[Kind, tuple[Colour, ...]] = {
    "cat": ((150, 178, 74), (214, 168, 52), (96, 158, 190), (176, 120, 48)),
    "dog": ((98, 62, 36), (84, 56, 38), (140, 92, 44), (104, 150, 184)),
}
EARS: dict[Kind, tuple[tuple[Ears, float], ...]] = {  # shape, probability
    "cat": (("pointed", 1.0),),
    "dog": (("floppy", 0.66), ("folded", 0.18), ("erect", 0.16)),
}
MOUTH_OPEN_PROBABILITY: dict[Kind, float] = {"cat": 0.08, "dog": 0.6}
COLLARS: tuple[Colour, ...] = (
    (192, 48, 52),
    (44, 92, 168),
    (52, 134, 84),
    (226, 176, 44),
    (120, 70, 150),
    (40, 40, 44),
)
COLLAR_PROBABILITY = 0.4  # the same for both kinds, so that a collar does not tell them apart


@dataclass(frozen=True)
class Sitter:
    """One animal."""

    kind: Kind
    coat: Coat
    eye: Colour
    ears: Ears
    ear_size: float
    """1 for a middling animal of its kind."""
    snout: float
    """How long the snout is, 1 for a middling animal of its kind."""
    width: float
    """How wide head and body are, 1 for a middling animal of its kind."""
    turn: float
    """How far the nose is turned to the right in a front view, in units."""
    pupil: float
    """How wide the pupils are open, 0 to 1."""
    mouth_open: bool
    collar: Colour | None

    @classmethod
    def random(cls, kind: Kind, rng: np.random.Generator) -> Self:
        return cls(
            kind=kind,
            coat=Coat.random(rng),
            eye=EYES[kind][int(rng.integers(len(EYES[kind])))],
            ears=EARS[kind][int(rng.choice(len(EARS[kind]), p=[weight for _, weight in EARS[kind]]))][0],
            ear_size=rng.uniform(0.85, 1.2),
            snout=rng.uniform(0.8, 1.25),
            width=rng.uniform(0.92, 1.1),
            turn=rng.uniform(-0.22, 0.22),
            pupil=rng.uniform(0, 1),
            mouth_open=rng.random() < MOUTH_OPEN_PROBABILITY[kind],
            collar=COLLARS[int(rng.integers(len(COLLARS)))] if rng.random() < COLLAR_PROBABILITY else None,
        )
