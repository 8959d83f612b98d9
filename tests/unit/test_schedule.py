"""Learning rates by step, compared with the papers and with torch."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.fitting.schedule import (
    cycle_ends,
    cycle_of,
    decoupled_decay,
    learning_rate,
    one_cycle,
    one_cycle_momentum,
    sgdr,
    step_decay,
)
from training.recipes.stage import Stage
from training.reports.plots import rates_over_time

LENGTHS = st.integers(1, 60)
MULTS = st.integers(1, 4)


def optimizer(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


@pytest.mark.parametrize(("first", "mult"), [(7, 1), (10, 2), (5, 3), (19, 2), (1, 1)])
def test_sgdr_without_its_warm_up_is_torch_s_cosine_with_warm_restarts(first: int, mult: int) -> None:
    ours = optimizer(0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(ours, first, mult)
    for step in range(80):
        if step >= first / 20:
            assert sgdr(step, lr=0.1, first_cycle=first, cycle_mult=mult) == pytest.approx(
                ours.param_groups[0]["lr"], abs=1e-9
            )
        ours.step()
        scheduler.step()


@pytest.mark.parametrize("steps", [10, 37, 200])
def test_one_cycle_is_torch_s(steps: int) -> None:
    ours = optimizer(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = torch.optim.lr_scheduler.OneCycleLR(ours, 0.1, total_steps=steps)
    for step in range(steps):
        group = ours.param_groups[0]
        assert one_cycle(step, lr=0.1, first_cycle=steps) == pytest.approx(group["lr"], rel=1e-6, abs=1e-12)
        assert one_cycle_momentum(step, first_cycle=steps) == pytest.approx(group["momentum"], rel=1e-6)
        ours.step()
        if step < steps - 1:
            scheduler.step()


def test_step_decay_with_equal_cycles_is_torch_s_step_lr() -> None:
    ours = optimizer(0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(ours, 8)
    for step in range(40):
        assert step_decay(step, lr=0.5, first_cycle=8) == pytest.approx(ours.param_groups[0]["lr"])
        ours.step()
        scheduler.step()


def test_the_first_twentieth_of_the_first_cycle_runs_at_a_hundredth() -> None:
    rates = [sgdr(step, lr=1.0, first_cycle=100, cycle_mult=1) for step in range(200)]
    assert rates[:5] == [0.01] * 5
    assert rates[5] > 0.9
    assert rates[100] == 1.0  # a restart has none
    assert [sgdr(step, lr=1.0, first_cycle=21) == 0.01 for step in range(3)] == [True, True, False]  # rounded up


@given(first=LENGTHS, mult=MULTS, cycles=st.integers(1, 5), lr=st.floats(1e-6, 10))
def test_a_cycle_starts_high_falls_and_ends_where_snapshots_are_taken(
    first: int, mult: int, cycles: int, lr: float
) -> None:
    ends = cycle_ends(cycles=cycles, first_cycle=first, cycle_mult=mult)
    assert ends[-1] == sum(first * mult**k for k in range(cycles))
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        assert cycle_of(start, first_cycle=first, cycle_mult=mult) == (number, 0, end - start)
        assert cycle_of(end - 1, first_cycle=first, cycle_mult=mult)[0] == number
        rates = [sgdr(s, lr=lr, first_cycle=first, cycle_mult=mult) for s in range(start, end)]
        after_warm_up = rates if number else rates[math.ceil(first / 20) :]
        assert all(0 < rate <= lr for rate in rates)
        assert after_warm_up == sorted(after_warm_up, reverse=True)


@given(first=LENGTHS, mult=MULTS, lr=st.floats(1e-6, 10), step=st.integers(0, 99))
def test_no_schedule_leaves_zero_to_lr(first: int, mult: int, lr: float, step: int) -> None:
    for schedule in ("sgdr", "one-cycle", "step", "constant"):
        rate = learning_rate(schedule, step, lr=lr, first_cycle=first, cycle_mult=mult)  # type: ignore[arg-type]
        assert 0 < rate <= lr * (1 + 1e-12)
        assert math.isfinite(rate)
    assert 0.85 <= one_cycle_momentum(step, first_cycle=first, cycle_mult=mult) <= 0.95


def test_the_plot_shows_the_learning_rates_of_each_group() -> None:
    stage = Stage(freeze_to=0, cycles=2, cycle_mult=2, lr=(1e-4, 1e-2))
    plotted = rates_over_time(stage, [1e-4, 1e-2], per_epoch=10, momentum=0.9, first_epoch=3)
    assert plotted.epochs[0] == 3
    assert plotted.epochs[-1] == 3 + 29 / 10
    assert plotted.rates[1][10] == 1e-2
    assert plotted.rates[0][10] == 1e-4
    assert set(plotted.momentum) == {0.9}


def test_decoupled_decay_follows_the_learning_rate_and_is_halved_by_a_cycle_four_times_as_long() -> None:
    of_cycles = {"weight_decay": 0.1, "first_cycle": 25, "cycle_mult": 4}
    assert decoupled_decay(3, rate_part=1.0, **of_cycles) == pytest.approx(0.1 / 5)
    assert decoupled_decay(30, rate_part=1.0, **of_cycles) == pytest.approx(0.1 / 10)
    assert decoupled_decay(30, rate_part=0.25, **of_cycles) == pytest.approx(0.1 / 40)
    with pytest.raises(ValueError, match="weight_decay is 0"):
        Stage(decoupled_decay=True)
