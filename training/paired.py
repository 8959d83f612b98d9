"""Two networks on the same photos in; whether one is better, and how sure that is, out."""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Paired:
    """How answers changed from one network to another."""

    gained: int
    """Photos that only the second has right."""
    lost: int
    """Photos that only the first has right."""
    p_value: float
    """McNemar's exact test, two-sided (McNemar 1947): how likely a difference like this is if neither is better."""


def compare(before_N: NDArray[np.bool_], after_N: NDArray[np.bool_]) -> Paired:
    """Compare what two networks had right, photo by photo."""
    gained, lost = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    changed = gained + lost
    fewer = min(gained, lost)
    tail = sum(comb(changed, count) for count in range(fewer + 1))
    return Paired(gained, lost, min(1.0, tail / 2 ** (changed - 1)) if changed else 1.0)
