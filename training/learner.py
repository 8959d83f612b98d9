"""A model, batches and a schedule in; a trained model and its history out. The fit loop."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.activations import Activations
from training.recipe import Recipe
from training.schedule import sgdr


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says at which step, and what to change."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did; one line of `history.jsonl`."""

    epoch: int
    """Counts from 1."""
    lr: float
    """Of the epoch's last step."""
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    seconds: float


def batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Indices 0 to count - 1 in random order, in batches of at most `batch_size`.

    A last batch of one joins the one before: batch norm cannot learn from a single row.
    """
    order = rng.permutation(count)
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:stop]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the CPU.

    A head's matrices are so small that a second thread gains little, and waits long for the first wherever other
    programs run too (4 s became 45 s on two busy cores). It also makes sums independent of the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_head(
    head: nn.Module,
    *,
    train: Activations,
    valid: Activations,
    recipe: Recipe,
    device: torch.device,
    on_epoch: Callable[[EpochResult], None],
    clock: Callable[[], float],
) -> None:
    """Train a head on precomputed activations: SGD with momentum, SGDR, negative log likelihood.

    Args:
        head: features `[N, 2C]` -> logits `[N, K]`; trained in place and left in eval mode.
        clock: seconds, monotonic.

    Raises:
        TrainingError: if the loss is no longer a number.
    """
    head.to(device)
    optimizer = torch.optim.SGD(
        head.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    labels = torch.from_numpy(train.labels())
    rng = np.random.default_rng(recipe.seed)
    count = len(train)
    per_epoch = len(list(batches(count, recipe.batch_size, np.random.default_rng(0))))
    first_cycle = recipe.cycle_len * per_epoch
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        began = clock()
        head.train()
        total = 0.0
        for indices in batches(count, recipe.batch_size, rng):
            lr = sgdr(step, lr=recipe.lr, first_cycle=first_cycle, cycle_mult=recipe.cycle_mult)
            for group in optimizer.param_groups:
                group["lr"] = lr
            features = torch.from_numpy(train.features(indices)).to(device)
            loss = functional.cross_entropy(head(features), labels[indices].to(device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            total += _finite(loss, step, lr) * len(indices)
            step += 1
        logits = run_head(head, valid, device)
        valid_labels = torch.from_numpy(valid.labels())
        on_epoch(
            EpochResult(
                epoch=epoch,
                lr=lr,
                train_loss=total / count,
                valid_loss=float(functional.cross_entropy(logits, valid_labels)),
                valid_accuracy=float((logits.argmax(1) == valid_labels).float().mean()),
                seconds=clock() - began,
            )
        )
    head.eval()


def run_head(head: nn.Module, activations: Activations, device: torch.device, batch_size: int = 1024) -> Tensor:
    """Logits float32 `[len(activations), K]` on the CPU, in eval mode, one row an example."""
    head.eval()
    with torch.inference_mode():
        logits = [
            head(torch.from_numpy(activations.features(indices)).to(device)).cpu()
            for indices in np.array_split(np.arange(len(activations)), math.ceil(len(activations) / batch_size))
        ]
    return torch.cat(logits)


def _finite(loss: Tensor, step: int, lr: float) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} at step {step} with learning rate {lr:g}: lower --lr (a tenth is a good next try)"
        )
    return value
