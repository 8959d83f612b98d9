"""How many processes train together, which one this is, and what they do in common (torch.distributed).

Start several with `torchrun --nproc-per-node N -m training -- fit …`; without it there is one, and nothing is sent.
"""

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from training.progress import console

_T = TypeVar("_T")
_BATCH_NORM = inspect.signature(functional.batch_norm)


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """This process's part: every item belongs to exactly one process."""
        return items[self.rank :: self.count]

    def share_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """`share` of an array."""
        return rows[self.rank :: self.count]

    def wait(self) -> None:
        """Return when every process has come this far."""
        if self.count > 1:
            distributed.barrier()

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def join_rows(self, rows: Tensor, count: int) -> Tensor:
        """Rows `[count, …]` in the order of the items, from the rows of each process's `share`."""
        if self.count == 1:
            return rows
        largest = -(-count // self.count)
        padded = rows.new_zeros(largest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(parts, padded)
        joined = rows.new_empty(count, *rows.shape[1:])
        for rank, part in enumerate(parts):
            joined[rank :: self.count] = part[: len(joined[rank :: self.count])]
        return joined

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients, in one message.

        Not torch's DistributedDataParallel: it never lets go of the process group, whose threads then still run when
        Python ends, and now and then bring a process down that has done all its work.
        """
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        summed = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, torch.split(summed, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, network: nn.Module) -> None:
        """Give every process the first one's weights and statistics."""
        if self.count > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, 0)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did; all but the first are silent."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    processes = Processes(distributed.get_rank(), count)
    console.quiet = not processes.first
    try:
        yield processes
    finally:
        console.quiet = False
        distributed.destroy_process_group()


class SharedBatchNorm(TorchFunctionMode):
    """While active, batch norms that learn see the rows of all processes: one process and several agree.

    What torch.nn.SyncBatchNorm does on GPUs, for any device and any module that calls `functional.batch_norm`: the
    mean and the variance are summed over processes, differentiably. Inputs are `[N, C]` or `[N, C, H, W]`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            call = _BATCH_NORM.bind(*args, **(kwargs or {}))
            call.apply_defaults()
            if call.arguments["training"]:
                return _shared_batch_norm(**call.arguments)
        return func(*args, **(kwargs or {}))


def _total(values: Tensor) -> Tensor:
    return cast(Tensor, _Total.apply(values))


class _Total(torch.autograd.Function):
    """The sum of a tensor over all processes; so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        distributed.all_reduce(total)
        return total


def _shared_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    x = input.float()
    dims = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    rows = x.new_tensor([x.numel() / x.shape[1]])
    sums = _total(torch.cat([x.sum(dims), rows]))
    count, mean = sums[-1], sums[:-1] / sums[-1]
    centred = x - mean.view(shape)  # before squaring: the difference of two large sums would lose digits
    variance = _total((centred * centred).sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)
    y = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        y = y * weight.view(shape)
    if bias is not None:
        y = y + bias.view(shape)
    return y.to(input.dtype)
