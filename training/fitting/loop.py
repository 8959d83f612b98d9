"""The fit loop: trains a network for the epochs of one stage."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.data.sources import Source, derived_seed
from training.fitting.schedule import cycle_ends, decoupled_decay, learning_rate, one_cycle_momentum
from training.fitting.trainer import Trainer
from training.recipes.stage import Stage

CHECK_EVERY = 16
"""Steps between checks of the losses: each check waits for the GPU."""
ORDER, DROPOUT, VIEWS = range(3)
"""Purposes of random numbers."""


class TrainingError(RuntimeError):
    """Training that cannot continue; the message says at which step, and what to change."""


@dataclass(frozen=True)
class EpochResult:
    """The results of one epoch; one line of `history.jsonl`."""

    stage: str
    epoch: int
    """Counts from 1, over all stages."""
    lr: float
    """Learning rate of the last layer group at the epoch's last step."""
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    rate: float
    """Training rows per second."""
    seconds: float
    """Training and validation."""


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch."""

    result: EpochResult
    logits: Tensor
    """Validation logits `[N, K]`."""
    ended_cycle: int | None
    """The cycle, from 0, whose last epoch this is."""


def train_epochs(
    trainer: Trainer,
    stage: Stage,
    *,
    name: str,
    train: Source,
    valid: Source,
    rates: Sequence[float],
    batch_size: int,
    seed: int,
    done: int,
    before: int,
    on_batch: Callable[[int, int], None],
) -> Iterator[Epoch]:
    """Train for a stage's epochs, and yield at the end of each.

    The random numbers of an epoch depend on `seed` and the epoch's number alone, so a stage that continues from a
    checkpoint gives the same result as one that was not interrupted.

    Args:
        rates: highest learning rate of each trained group.
        batch_size: over all processes.
        done: epochs of this stage that the checkpoint has.
        before: epochs of earlier stages, for numbering.
        on_batch: called with (rows done in this stage, rows in it).

    Raises:
        TrainingError: if the loss is not finite.
    """
    stage_name = name.split()[0]  # without the size
    count = len(train.labels())
    processes = trainer.processes
    per_epoch = len(train.epoch(batch_size, 0, processes.count))
    cycles = {"first_cycle": stage.cycle_len * per_epoch, "cycle_mult": stage.cycle_mult}
    ends = cycle_ends(cycles=stage.cycles, **cycles)
    valid_labels = torch.from_numpy(valid.labels())
    for epoch in range(done, stage.epochs):
        began = time.monotonic()
        step = epoch * per_epoch
        batches = train.epoch(batch_size, derived_seed(seed, ORDER, epoch), processes.count)
        torch.manual_seed(derived_seed(seed, DROPOUT, epoch, processes.rank))
        trainer.train()
        losses: list[Tensor] = []
        rows_done = 0
        views = train.batches([parts[processes.rank] for parts in batches], derived_seed(seed, VIEWS, epoch))
        for parts, (inputs, labels) in zip(batches, views, strict=True):
            rows = sum(map(len, parts))
            now = [learning_rate(stage.schedule, step, lr=rate, **cycles) for rate in rates]
            momentum = one_cycle_momentum(step, **cycles) if stage.schedule == "one-cycle" else None
            decay = 0.0
            if stage.decoupled_decay:
                part = now[-1] / rates[-1]
                decay = decoupled_decay(step, weight_decay=stage.weight_decay, rate_part=part, **cycles)
            losses.append(trainer.step(inputs, labels, rows=rows, rates=now, momentum=momentum, decay=decay))
            step += 1
            rows_done += rows
            if len(losses) % CHECK_EVERY == 0 or rows_done == count:
                _check_finite(
                    torch.stack(losses[-CHECK_EVERY:]).tolist(), f"the loss of stage {stage_name}", step, now[-1]
                )
            on_batch(epoch * count + rows_done, stage.epochs * count)
        train_loss = float(processes.total(torch.stack(losses).sum())) / count
        trained = time.monotonic()
        logits = trainer.predict(valid)
        result = EpochResult(
            stage=name,
            epoch=before + epoch + 1,
            lr=now[-1],
            train_loss=train_loss,
            valid_loss=float(functional.cross_entropy(logits, valid_labels)),
            valid_accuracy=float((logits.argmax(1) == valid_labels).float().mean()),
            rate=round(count / max(trained - began, 1e-9), 1),
            seconds=round(time.monotonic() - began, 4),
        )
        # before a checkpoint is written: one of a diverged network would replace the last good one
        _check_finite([result.valid_loss], f"the validation loss of stage {stage_name}", step, now[-1])
        yield Epoch(result, logits, ends.index(step) if step in ends else None)
    trainer.network.eval()


def _check_finite(values: Sequence[float], what: str, step: int, lr: float) -> None:
    """Check the losses up to, but not including, a step."""
    for index, value in enumerate(values, step - len(values)):
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} is {value} at its step {index} with learning rate about {lr:g}: lower "
                f"--stages.{what.split()[-1]}.lr (a tenth is a good next try)"
            )
