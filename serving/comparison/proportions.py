"""Proportions and differences of proportions, with their confidence intervals."""

from dataclasses import dataclass
from math import sqrt

Z_95 = 1.959963984540054
"""The quantile of the standard normal distribution that gives 95% confidence."""
Z_95_ONE_SIDED = 1.6448536269514722
"""The same for a one-sided bound."""


@dataclass(frozen=True)
class Rate:
    """A proportion with its confidence interval: 0 <= lower <= value <= upper <= 1."""

    value: float
    lower: float
    upper: float
    count: int
    """The number of cases."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    lower: float
    upper: float


def wilson(successes: int, count: int, z: float = Z_95) -> Rate:
    """A proportion with the Wilson score interval (Wilson 1927, Probable Inference, the Law of Succession).

    Args:
        successes: 0 to `count`.
        count: how many cases there are, at least 1.
        z: quantile of the standard normal distribution; the default gives 95% confidence.

    Raises:
        ValueError: if there are no cases, or more successes than cases.
    """
    # converted to Python's integers: the product below would overflow those of numpy
    successes, count = int(successes), int(count)
    if count < 1:
        raise ValueError(f"count is {count}; a proportion needs at least 1 case")
    if not 0 <= successes <= count:
        raise ValueError(f"successes is {successes}; with {count} cases it must be 0 to {count}")
    value = successes / count
    centre = successes + z * z / 2
    half_width = z * sqrt(successes * (count - successes) / count + z * z / 4)
    # the interval contains the proportion by definition; at 0 and 1, where they meet, rounding may break that
    lower = max(0.0, min(value, (centre - half_width) / (count + z * z)))
    upper = min(1.0, max(value, (centre + half_width) / (count + z * z)))
    return Rate(value, lower, upper, count)


def square_and_add(first: Rate, second: Rate, correlation: float = 0.0) -> Interval:
    """Second minus first, -1 to 1, with an interval from their own ("square and add"; Newcombe 1998).

    Args:
        first: a proportion with its Wilson interval.
        second: another one.
        correlation: of the two estimates; 0 for independent samples.
    """
    value = second.value - first.value
    below = (second.value - second.lower, first.upper - first.value)
    above = (second.upper - second.value, first.value - first.lower)
    lower, upper = value - _hypotenuse(*below, correlation), value + _hypotenuse(*above, correlation)
    return Interval(value, max(-1.0, lower), min(1.0, upper))


def _hypotenuse(one: float, other: float, correlation: float) -> float:
    return sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))
