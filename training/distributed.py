"""Training in several processes with torch.distributed.

Start them with `torchrun --nproc-per-node N -m training -- fit …`; without it there is one, and nothing is sent.
"""

import importlib
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from training.console import console

_BATCH_NORM = inspect.signature(functional.batch_norm)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and which one this is."""

    rank: int = 0
    count: int = 1
    _together: WeakSet[nn.Module] = field(default_factory=WeakSet, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for every process to get here."""
        if self.count > 1:
            distributed.barrier()

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def join_rows(self, rows: Tensor, parts: Sequence[NDArray[np.int64]]) -> Tensor:
        """Rows `[count, …]` in order, from the rows that each process has.

        Args:
            rows: this process's.
            parts: which rows each process has, at least one.
        """
        if self.count == 1:
            return rows[torch.from_numpy(np.argsort(parts[0])).to(rows.device)]
        padded = rows.new_zeros(max(map(len, parts)), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(gathered, padded)
        joined = rows.new_empty(sum(map(len, parts)), *rows.shape[1:])
        for part, found in zip(parts, gathered, strict=True):
            joined[torch.from_numpy(part).to(rows.device)] = found[: len(part)]
        return joined

    def together(self, network: nn.Module) -> nn.Module:
        """Synchronize a network: all processes get the first one's weights and statistics, and `backward` gives each
        the mean of all their gradients.

        Args:
            network: on its device; the trainable parameters must not change while the result is used.

        Returns:
            The network itself if there is one process, otherwise torch's DistributedDataParallel around it.
        """
        if self.count == 1:
            return network
        self.part()
        device = next(network.parameters()).device
        together = nn.parallel.DistributedDataParallel(network, [device] if device.type == "cuda" else None)
        together.broadcast_buffers = False  # `SharedBatchNorm` keeps them equal
        self._together.add(together)
        return together

    def part(self) -> None:
        """Release what `together` returned, even if it is referenced elsewhere.

        Its hooks on the parameters' gradients keep the process group alive.
        """
        for together in self._together:
            vars(together).clear()
        self._together.clear()


@contextmanager
def joined_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if any; only the first prints."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup()
        return
    # DistributedDataParallel imports this module, whose functions have the default process group as default arguments.
    # Imported after the group is made, they would keep it and its threads alive until Python ends, which then aborts.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    processes = ProcessGroup(distributed.get_rank(), count)
    console.quiet = not processes.first
    try:
        yield processes
    finally:
        console.quiet = False
        processes.part()
        distributed.destroy_process_group()


class SharedBatchNorm(TorchFunctionMode):
    """While active, trainable batch norms use the rows of all processes, so that one process and several agree.

    This does what torch.nn.SyncBatchNorm does on GPUs, for any device and any module that calls
    `functional.batch_norm`: the mean and the variance are summed over processes, differentiably.
    Inputs are `[N, C]` or `[N, C, H, W]`.
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
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

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
