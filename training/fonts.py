"""Names of classes in; fonts of this machine that can draw them, and names that can be drawn, out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import fontManager, get_font

BASE = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""
LAST_RESORT = "Last Resort"
"""Fonts that have a box for every character."""
MAX_LENGTH = 28
NO_FONT = "#{}"


@dataclass(frozen=True)
class Lettering:
    """How to write names in a plot."""

    families: list[str]
    """Fonts to look for each character in, in this order."""
    names: list[str]
    """As given, long ones shortened; a name that no font here can draw is its number among all, as '#3'."""
    missing: int
    """Names that no font here can draw."""


def lettering(names: Sequence[str]) -> Lettering:
    """Choose fonts that together draw as many of the names as can be."""
    families = [BASE]
    drawn: list[str] = []
    covered = set(_characters(BASE))
    for number, name in enumerate(names):
        wanted = {ord(character) for character in name}
        for family in () if wanted <= covered else _others():
            if (wanted - covered) & _characters(family):
                families.append(family)
                covered |= _characters(family)
            if wanted <= covered:
                break
        drawn.append(_shortened(name) if wanted <= covered else NO_FONT.format(number))
    return Lettering(families, drawn, sum(name == NO_FONT.format(number) for number, name in enumerate(drawn)))


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 9]}…{name[-8:]}"


@cache
def _files() -> dict[str, str]:
    """Upright fonts of regular weight: family -> file."""
    upright = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    return {font.name: font.fname for font in upright if not font.name.startswith(LAST_RESORT)}


@cache
def _others() -> tuple[str, ...]:
    """The other families, those for text on screens first."""
    return tuple(sorted(_files().keys() - {BASE}, key=lambda name: ("Sans" not in name, name)))


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(get_font(_files()[family]).get_charmap())
