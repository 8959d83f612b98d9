"""A network and its layer groups in; the same network after one step, or its logits, out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.sources import Source, ordered_batches
from training.distributed import ProcessGroup, SharedBatchNorm
from training.hardware import Hardware
from training.networks.layer_groups import LayerGroup, freeze_to, set_training


class Trainer:
    """SGD with momentum on the groups that learn, one rate for each; the loss is negative log likelihood."""

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[LayerGroup],
        *,
        first: int,
        momentum: float,
        weight_decay: float,
        freeze_bn: bool,
        hardware: Hardware,
        processes: ProcessGroup,
        compiled: bool = False,
    ) -> None:
        """Move a network to the hardware and make its optimizer.

        Args:
            network: inputs -> logits `[n, K]`; trained in place.
            first: the first group that learns, as `freeze_to` takes it.
            compiled: whether to train through torch.compile.
        """
        self.network = network.to(hardware.device).to(memory_format=torch.channels_last)
        self.groups = groups
        self.first = first
        self.hardware = hardware
        self.processes = processes
        self.freeze_bn = freeze_bn
        self.learning = freeze_to(groups, first)
        self.optimizer = torch.optim.SGD(
            [{"params": group.parameters} for group in self.learning],
            lr=0.0,
            momentum=momentum,
            weight_decay=weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.scaled)
        self._forward = processes.together(self.network)
        if compiled:
            self._forward = cast(nn.Module, torch.compile(self._forward))

    def step(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        rows: int,
        rates: Sequence[float],
        momentum: float | None = None,
        decay: float = 0.0,
    ) -> Tensor:
        """Learn from one batch.

        Args:
            inputs, labels: this process's part of the batch.
            rows: of the whole batch, over all processes.
            rates: one for each group that learns.
            momentum: instead of the one given at first.
            decay: part of each weight that is taken off it, beside what the gradient asks for.

        Returns:
            The sum of this part's losses, a scalar on the device, not waited for.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            if momentum is not None:
                group["momentum"] = momentum
        device = self.hardware.device
        inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with self.shared_norms(), self._autocast():
            logits = self._forward(inputs)
            total = functional.cross_entropy(logits.float(), labels, reduction="sum")
            self.optimizer.zero_grad(set_to_none=True)
            # the gradients of all processes are averaged, and to be added
            torch.autograd.backward(self.scaler.scale(total * (self.processes.count / rows)))
        if decay:
            with torch.no_grad():
                torch._foreach_mul_([weight for group in self.learning for weight in group.parameters], 1 - decay)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total.detach()

    def train(self) -> None:
        """Training mode, frozen groups in eval mode."""
        set_training(self.network, self.groups, first=self.first, freeze_bn=self.freeze_bn)

    def predict(self, source: Source) -> Tensor:
        """Logits float32 `[N, K]` of every row on the CPU, in order, in eval mode; the processes share the work."""
        self.network.eval()
        parts = source.parts(self.processes.count)
        logits = []
        with torch.inference_mode(), self._autocast():
            for inputs, _ in source.batches(ordered_batches(parts[self.processes.rank]), seed=0):
                logits.append(self.network(inputs.to(self.hardware.device, non_blocking=True)).float())
            return self.processes.join_rows(torch.cat(logits), parts).cpu()

    def state(self) -> dict[str, Any]:
        """What a step depends on, apart from random numbers: weights, statistics, momentum, scale."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Back to a `state`, bit for bit; one without `network` leaves the network as it is."""
        if "network" in state:
            self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.hardware.autocast is None:
            return nullcontext()
        return torch.autocast(self.hardware.device.type, self.hardware.autocast)

    def shared_norms(self) -> AbstractContextManager[Any]:
        """While active, batch norms that learn see the rows of all processes."""
        return SharedBatchNorm() if self.processes.count > 1 else nullcontext()
