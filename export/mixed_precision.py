"""Lowers the precision of a network as far as its checks allow: the most sensitive layers stay in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from export.checks.checks import CheckError, ParityError
from training.console import say

FLOAT_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of layers that stay in float32, tried in this order."""


@dataclass(frozen=True)
class Converted:
    """A graph of lower precision that passed its checks."""

    graph: bytes
    parity: dict[str, Any]
    float_layers: dict[str, float]
    """The layers left in float32 with their sensitivity, the most sensitive first."""


def convert_until_passed(
    convert: Callable[[Sequence[str]], bytes],
    check: Callable[[bytes], dict[str, Any]],
    measure_sensitivity: Callable[[], dict[str, float]],
    *,
    most_float: int,
    advice: str,
) -> Converted:
    """Convert all layers; if the checks fail, leave the most sensitive 1, 2, 3, 4, 6, 8, ... layers in float32.

    Args:
        convert: returns the graph in which the named layers stay float32.
        check: returns parity figures, or raises CheckError.
        measure_sensitivity: returns the sensitivity of every layer, the most sensitive first; called if needed.
        most_float: largest number of layers that may stay in float32.
        advice: what a user can do if that does not suffice, for the message.

    Raises:
        CheckError: with the best result, if the checks fail with `most_float` layers (or all but one) in float32; at
            once, if they fail for another reason than too large a difference.
    """
    best: tuple[ParityError, int] | None = None
    sensitivities: dict[str, float] = {}
    for count in (0, *FLOAT_COUNTS):
        if count == 1:
            say("measuring the sensitivity of each layer")
            sensitivities = measure_sensitivity()
        if count > min(most_float, max(0, len(sensitivities) - 1)):
            break
        kept = dict(list(sensitivities.items())[:count])
        graph = convert(list(kept))
        try:
            parity = check(graph)
        except ParityError as error:
            say(f"with {count} layers in float32: {error}")
            if best is None or error.excess < best[0].excess:
                best = error, count
            continue
        if kept:
            say(f"passed with {count} of {len(sensitivities)} layers in float32: {', '.join(kept)}")
        return Converted(graph, parity, kept)
    assert best is not None
    failure, count = best
    raise CheckError(
        f"{failure}. That is the best result, with {count} of {len(sensitivities)} layers in float32: {advice}"
    )
