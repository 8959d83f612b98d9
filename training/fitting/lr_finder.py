"""The learning-rate range test (Smith 2015) with fast.ai 0.7's rules."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.data.sources import Batch, Source, derived_seed
from training.fitting.trainer import Trainer

LOWEST, HIGHEST = 1e-5, 10.0
BETA = 0.98
"""Decay of the smoothed loss."""
STEPS = 100
STOP_FACTOR = 4.0
"""The sweep stops when the smoothed loss is this many times its minimum."""
IGNORED_STEPS = 10
"""The first steps do not count towards the minimum: they depend on few batches."""
SKIP_FIRST, SKIP_LAST = 10, 5
"""Points that the plot and the suggestions leave out: before the smoothing has settled, and while the loss diverges."""
MIN_FALL, MAX_RISE = 0.1, 0.5
"""A minimum is clear if the loss falls by a tenth, and rises on its way by no more than half of that."""
RECIPE, STEEPEST, VALLEY = "recipe", "steepest", "valley"


@dataclass(frozen=True)
class LrCurve:
    """The loss at each learning rate."""

    name: str
    """Name of the stage."""
    lrs: list[float]
    """Learning rates of the last layer group, rising exponentially."""
    losses: list[float]
    """Smoothed and debiased."""

    def shown(self) -> tuple[list[float], list[float]]:
        """Learning rates and losses without the first and last points; all of them if few would be left."""
        if len(self.lrs) <= SKIP_FIRST + SKIP_LAST + 5:
            return self.lrs, self.losses
        return self.lrs[SKIP_FIRST:-SKIP_LAST], self.losses[SKIP_FIRST:-SKIP_LAST]

    def suggestions(self) -> dict[str, float]:
        """The learning rate that each rule suggests."""
        lrs, losses = self.shown()
        return {
            RECIPE: lrs[int(np.argmin(losses))] / 10,
            STEEPEST: lrs[int(np.argmin(np.gradient(losses, np.log(lrs))))] if len(lrs) > 1 else lrs[0],
            VALLEY: lrs[_valley(losses)],
        }

    def recommendation(self) -> tuple[float | None, str]:
        """The learning rate to use, and why; None if the curve has no clear minimum."""
        lrs, losses = self.shown()
        best = int(np.argmin(losses))
        fall, rest = losses[0] - losses[best], np.asarray(losses[: best + 1])
        rises = float(np.maximum(np.diff(rest), 0).sum()) if best else 0.0
        if best < 3 or fall < MIN_FALL * abs(losses[0]) or rises > MAX_RISE * fall:
            return None, (
                f"no clear minimum: the loss falls from {losses[0]:.3g} to {losses[best]:.3g} at most; use the "
                "recipe's rate, or test with more images or larger batches"
            )
        suggestions = self.suggestions()
        low, high = sorted((suggestions[STEEPEST], lrs[best]))
        rate = suggestions[RECIPE]
        where = "where the loss falls" if low / 10 <= rate <= high else "below where the loss falls fastest"
        return rate, f"a tenth of the rate at the lowest loss ({lrs[best]:.2g}), {where}"

    def applied(self, rates: Sequence[float]) -> list[float]:
        """The learning rates of all groups with the recommended one for the last; unchanged if there is none."""
        rate, _ = self.recommendation()
        return list(rates) if rate is None else [rate * each / rates[-1] for each in rates]


def sweep_rates() -> list[float]:
    """Learning rates from the lowest to the highest, each the same multiple of the one before."""
    return [LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)) for step in range(STEPS)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential moving average, debiased by 1 - beta^i as in Adam (Kingma & Ba 2015, section 3)."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = BETA * average + (1 - BETA) * loss
        result.append(average / (1 - BETA**count))
    return result


def find_lr(
    trainer: Trainer,
    source: Source,
    *,
    name: str,
    ratios: Sequence[float],
    batch_size: int,
    seed: int,
    on_step: Callable[[int, int], None],
) -> LrCurve:
    """Raise the learning rate from 1e-5 to 10, a batch at each step; stop at NaN or at 4 times the lowest loss.

    Args:
        ratios: the learning rate of each trained group, divided by the last group's.
        on_step: called with (steps done, most steps).

    Returns:
        The curve. The trainer's tensors and torch's random numbers are restored.
    """
    before = copy.deepcopy(trainer.state())
    modes = [(module, module.training) for module in trainer.network.modules()]
    device = trainer.hardware.device
    lrs: list[float] = []
    raw: list[float] = []
    best = math.inf
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derived_seed(seed, trainer.processes.rank))
            trainer.train()
            for lr, (rows, (inputs, labels)) in zip(
                sweep_rates(), _batches(source, trainer, batch_size, seed), strict=False
            ):
                loss = trainer.step(inputs, labels, rows=rows, rates=[lr * ratio for ratio in ratios])
                lrs.append(lr)
                raw.append(float(trainer.processes.total(loss.clone())) / rows)
                on_step(len(lrs), STEPS)
                curve = smoothed(raw)
                if len(raw) > IGNORED_STEPS:
                    best = min(best, curve[-1])
                if not math.isfinite(raw[-1]) or curve[-1] > STOP_FACTOR * best:
                    break
    finally:
        trainer.load_state(before)
        trainer.optimizer.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training
    if not math.isfinite(raw[-1]) and len(raw) > 1:
        lrs.pop()
        raw.pop()
    return LrCurve(name, lrs, smoothed(raw))


def _batches(source: Source, trainer: Trainer, batch_size: int, seed: int) -> Iterator[tuple[int, Batch]]:
    """A batch for each step, epoch after epoch: its size, and this process's part of it."""
    processes = trainer.processes
    done = 0
    while done < STEPS:
        epoch = source.epoch(batch_size, derived_seed(seed, done), processes.count)[: STEPS - done]
        mine = source.batches([parts[processes.rank] for parts in epoch], seed)
        for parts, tensors in zip(epoch, mine, strict=True):
            yield sum(map(len, parts)), tensors
        done += len(epoch)


def _valley(losses: Sequence[float]) -> int:
    """The index half-way down the longest decreasing subsequence, where the loss falls and is not yet low."""
    length = [1] * len(losses)
    previous = [-1] * len(losses)
    for at in range(len(losses)):
        for earlier in range(at):
            if losses[earlier] > losses[at] and length[earlier] + 1 > length[at]:
                length[at], previous[at] = length[earlier] + 1, earlier
    end = start = int(np.argmax(length))
    while previous[start] >= 0:
        start = previous[start]
    return start + (end - start) // 2
