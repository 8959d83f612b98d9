"""Words of a command line in; numbers in their ranges, or what is wrong with the word, out."""

import argparse
from collections.abc import Callable
from math import inf

DAY_S = 86_400.0
MOST_WHOLE = 2**31 - 1
"""What gRPC, like most libraries, keeps whole numbers in."""
MOST_PORT = 65_535


def whole(most: int = MOST_WHOLE) -> Callable[[str], int]:
    """A parser of whole numbers from 1 to `most`, which raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most:,}")
        return int(text)

    return parse


positive = whole()


def number(unit: str, least: float, most: float, *, above: float = -inf) -> Callable[[str], float]:
    """A parser of numbers of a unit, from `least` (and more than `above`) to `most`; it raises ArgumentTypeError."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (least <= value <= most and value > above):
            lower = f"above {above:g}" if above >= least else f"from {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} {lower} to {most:g}")
        return value

    return parse


seconds = number("seconds", 0, DAY_S)


def address(text: str) -> str:
    """HOST:PORT. Raises ArgumentTypeError for anything else: gRPC would take the port modulo 65,536."""
    host, _, port = text.rpartition(":")
    if not host or host.startswith("unix") or not (port.isascii() and port.isdigit() and int(port) <= MOST_PORT):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address; write HOST:PORT, such as 0.0.0.0:50051 or [::1]:50051, with a port up to 65535"
        )
    return text
