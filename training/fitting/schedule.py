"""Learning-rate schedules: pure functions of the step."""

from itertools import accumulate
from math import cos, pi, sqrt

from training.recipes.stage import Schedule

WARM_UP_PART = 20
"""As in fast.ai 0.7, the first T_0 / 20 batches of SGDR, rounded up, run at a hundredth of the learning rate."""
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START, ONE_CYCLE_END = 25.0, 1e4
"""One-cycle rises from lr / 25 and falls to a ten-thousandth of that."""
ONE_CYCLE_MOMENTUM = (0.85, 0.95)


def sgdr(step: int, *, lr: float, first_cycle: int, cycle_mult: int = 1) -> float:
    """Stochastic gradient descent with warm restarts (Loshchilov & Hutter 2017, equation 5, minimum 0).

    Args:
        step: counts batches from 0.
        lr: the learning rate at each restart.
        first_cycle: length of the first cycle in batches, T_0.
        cycle_mult: cycle k has T_0 * cycle_mult^k batches.

    Returns:
        lr / 2 * (1 + cos(pi * i / T_k)), where i is the step within cycle k. As in fast.ai 0.7, the first T_0 / 20
        batches of training, rounded up, run at lr / 100.
    """
    if step < first_cycle / WARM_UP_PART:
        return lr / 100
    _, at, length = cycle_of(step, first_cycle=first_cycle, cycle_mult=cycle_mult)
    return lr / 2 * (1 + cos(pi * at / length))


def one_cycle(step: int, *, lr: float, first_cycle: int, cycle_mult: int = 1) -> float:
    """A cosine rise to `lr` over 30% of each cycle, then a cosine fall to almost 0 (Smith & Topin 2018)."""
    _, at, length = cycle_of(step, first_cycle=first_cycle, cycle_mult=cycle_mult)
    lowest = lr / ONE_CYCLE_START
    return _rise_and_fall(at, length, lowest, lr, lowest / ONE_CYCLE_END)


def one_cycle_momentum(step: int, *, first_cycle: int, cycle_mult: int = 1) -> float:
    """The momentum that goes with `one_cycle`: low where the learning rate is high."""
    low, high = ONE_CYCLE_MOMENTUM
    _, at, length = cycle_of(step, first_cycle=first_cycle, cycle_mult=cycle_mult)
    return _rise_and_fall(at, length, high, low, high)


def step_decay(step: int, *, lr: float, first_cycle: int, cycle_mult: int = 1) -> float:
    """Divide the learning rate by ten after each cycle."""
    cycle, _, _ = cycle_of(step, first_cycle=first_cycle, cycle_mult=cycle_mult)
    return lr * 0.1**cycle


def learning_rate(schedule: Schedule, step: int, *, lr: float, first_cycle: int, cycle_mult: int) -> float:
    """The learning rate of a step under a schedule by name; `constant` is `lr` itself."""
    if schedule == "constant":
        return lr
    rate = {"sgdr": sgdr, "one-cycle": one_cycle, "step": step_decay}[schedule]
    return rate(step, lr=lr, first_cycle=first_cycle, cycle_mult=cycle_mult)


def decoupled_decay(
    step: int, *, weight_decay: float, rate_part: float, first_cycle: int, cycle_mult: int = 1
) -> float:
    """The fraction of each weight that a step subtracts.

    weight_decay / sqrt(T), T steps in the cycle, times the schedule's multiplier: the normalised weight decay of
    Loshchilov & Hutter (2017, "Fixing weight decay regularization in Adam", appendix B).

    Args:
        rate_part: the step's learning rate divided by the highest.
    """
    _, _, length = cycle_of(step, first_cycle=first_cycle, cycle_mult=cycle_mult)
    return weight_decay / sqrt(length) * rate_part


def cycle_of(step: int, *, first_cycle: int, cycle_mult: int) -> tuple[int, int, int]:
    """The cycle of a step, from 0; the step within it; and the cycle's length in steps."""
    cycle, start, length = 0, 0, first_cycle
    while step >= start + length:  # integers: logarithms misplace restarts
        start += length
        length *= cycle_mult
        cycle += 1
    return cycle, step - start, length


def cycle_ends(*, cycles: int, first_cycle: int, cycle_mult: int) -> list[int]:
    """The steps after which each cycle is complete: its last step + 1."""
    return list(accumulate(first_cycle * cycle_mult**cycle for cycle in range(cycles)))


def _rise_and_fall(at: int, length: int, first: float, middle: float, last: float) -> float:
    """Cosine from `first` to `middle` over 30% of the steps, then to `last` at the last step."""
    top = ONE_CYCLE_RISE * length - 1
    if at <= top or length == 1:
        part, begin, end = (at / top if top > 0 else 1.0), first, middle
    else:
        part, begin, end = (at - top) / (length - 1 - top), middle, last
    return end + (begin - end) / 2 * (1 + cos(pi * part))
