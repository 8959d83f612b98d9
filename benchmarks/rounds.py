"""Measurements in rounds, all ways in turns, so that other work on the machine affects all of them; and medians."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

Case = TypeVar("Case")
Way = TypeVar("Way")
Measured = TypeVar("Measured")
Figures = Mapping[str, float]


def measure_in_turns(
    rounds: int, cases: Iterable[Case], ways: Mapping[Way, Callable[[Case], Measured]]
) -> dict[str, dict[Way, list[Measured]]]:
    """The measurements of all rounds, by case and way; each round begins with another way.

    Args:
        cases: what is measured in every way, such as numbers of clients.
        ways: each measures a case, by name.
    """
    found: dict[str, dict[Way, list[Measured]]] = {str(case): {name: [] for name in ways} for case in cases}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for case in cases:
            for name in names[first:] + names[:first]:
                found[str(case)][name].append(ways[name](case))
    return found


def medians(rounds: Sequence[Figures], *names: str) -> dict[str, float]:
    """The median of each figure, or of the named ones."""
    return {name: statistics.median(one[name] for one in rounds) for name in names or rounds[0]}


def median_ratio(rounds: Sequence[Figures], others: Sequence[Figures], name: str = "images_per_s") -> float:
    """The median of the ratios of a figure, each within a round."""
    return statistics.median(one[name] / other[name] for one, other in zip(rounds, others, strict=True))
