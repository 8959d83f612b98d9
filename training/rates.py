"""A stage and its rates in; what to plot of them over time out."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.schedule import learning_rate, one_cycle_momentum
from training.stage import Stage

POINTS = 400


@dataclass(frozen=True)
class RatesOverTime:
    """The rates of one step's layer groups, sampled."""

    epochs: list[float]
    rates: list[list[float]]
    """One list for each group that learns, first to last."""
    momentum: list[float]


def rates_over_time(
    stage: Stage, rates: Sequence[float], *, per_epoch: int, momentum: float, first_epoch: int
) -> RatesOverTime:
    """Sample a stage's schedule.

    Args:
        per_epoch: steps in an epoch.
        momentum: where the schedule has none of its own.
        first_epoch: epochs before this stage.
    """
    count = stage.epochs * per_epoch
    steps = sorted({*range(0, count, max(count // POINTS, 1)), count - 1})
    cycles = {"first_cycle": stage.cycle_len * per_epoch, "cycle_mult": stage.cycle_mult}
    one_cycle = stage.schedule == "one-cycle"
    return RatesOverTime(
        epochs=[first_epoch + step / per_epoch for step in steps],
        rates=[[learning_rate(stage.schedule, step, lr=rate, **cycles) for step in steps] for rate in rates],
        momentum=[one_cycle_momentum(step, **cycles) if one_cycle else momentum for step in steps],
    )
