"""Words of a command line in; numbers in their ranges, or what is wrong with the word, out."""

import argparse

DAY_S = 86_400.0


def positive(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError for anything else."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """Up to a day. Raises ArgumentTypeError, or ValueError for what is no number."""
    number = float(text)
    if not 0 <= number <= DAY_S:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 to a day")
    return number
