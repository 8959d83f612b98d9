"""Pure functions from a step to a learning rate."""

from math import cos, pi


def sgdr(step: int, *, lr: float, first_cycle: int, cycle_mult: int = 1) -> float:
    """Stochastic gradient descent with warm restarts (Loshchilov & Hutter 2017, equation 5, lowest rate 0).

    Args:
        step: counts batches from 0.
        lr: the rate at each restart.
        first_cycle: length of the first cycle in batches, T_0.
        cycle_mult: cycle k has T_0 * cycle_mult^k batches.

    Returns:
        lr / 2 * (1 + cos(pi * i / T_k)), where i is the step within cycle k. As in fast.ai 0.7, the first T_0 / 20
        batches of training run at lr / 100.
    """
    if step < first_cycle // 20:
        return lr / 100
    start, length = 0, first_cycle
    while step >= start + length:  # integers: logarithms misplace restarts
        start += length
        length *= cycle_mult
    return lr / 2 * (1 + cos(pi * (step - start) / length))


def cycle_ends(*, cycles: int, first_cycle: int, cycle_mult: int) -> list[int]:
    """The steps after which each cycle is complete: its last step + 1."""
    ends, end, length = [], 0, first_cycle
    for _ in range(cycles):
        end += length
        ends.append(end)
        length *= cycle_mult
    return ends
