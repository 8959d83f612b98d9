"""Trains a network step by step and computes its logits."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.data.sources import Source, ordered_batches
from training.distributed import ProcessGroup, SharedBatchNorm
from training.hardware import Hardware
from training.networks.layer_groups import LayerGroup, freeze, set_training


def balanced_weights(labels_N: NDArray[np.int64], classes: int) -> Tensor:
    """Weights float32 `[K]` with which each class counts the same, as scikit-learn's "balanced": N / (K n_k).

    A class without images has weight 0. The mean weight of the images is 1.
    """
    counts_K = np.bincount(labels_N, minlength=classes)
    present = int((counts_K > 0).sum())
    weights_K = np.divide(len(labels_N) / present, counts_K, out=np.zeros(classes), where=counts_K > 0)
    return torch.from_numpy(weights_K.astype(np.float32))


class Trainer:
    """SGD with momentum, one learning rate for each trained layer group; the loss is negative log likelihood."""

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[LayerGroup],
        *,
        momentum: float,
        weight_decay: float,
        freeze_bn: bool,
        hardware: Hardware,
        processes: ProcessGroup,
        compiled: bool = False,
        class_weights: Tensor | None = None,
    ) -> None:
        """Move a network to the device and make its optimizer.

        Args:
            network: inputs -> logits `[n, K]`; trained in place.
            compiled: whether to train through torch.compile.
            class_weights: float32 `[K]`, of each class in the loss; None for ones.
        """
        self.class_weights = None if class_weights is None else class_weights.to(hardware.device)
        self.network = network.to(hardware.device).to(memory_format=torch.channels_last)
        self.groups = groups
        self.hardware = hardware
        self.processes = processes
        self.freeze_bn = freeze_bn
        self.trained = [group for group in groups if group.trained]
        freeze(groups)
        self.optimizer = torch.optim.SGD(
            [{"params": group.parameters} for group in self.trained],
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
        """Train on one batch.

        Args:
            inputs, labels: this process's part of the batch.
            rows: of the whole batch, over all processes.
            rates: learning rate of each trained group.
            momentum: replaces the initial one.
            decay: fraction of each weight that is subtracted, independent of the gradient.

        Returns:
            The sum of this part's losses, a scalar on the device; does not wait for the device.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            if momentum is not None:
                group["momentum"] = momentum
        device = self.hardware.device
        inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with self.shared_norms(), _autocast(self.hardware):
            logits = self._forward(inputs)
            total = functional.cross_entropy(logits.float(), labels, self.class_weights, reduction="sum")
            self.optimizer.zero_grad(set_to_none=True)
            # the processes' gradients are averaged, and must be added
            torch.autograd.backward(self.scaler.scale(total * (self.processes.count / rows)))
        if decay:
            with torch.no_grad():
                torch._foreach_mul_([weight for group in self.trained for weight in group.parameters], 1 - decay)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total.detach()

    def train(self) -> None:
        """Training mode, frozen groups in eval mode."""
        set_training(self.network, self.groups, freeze_bn=self.freeze_bn)

    def predict(self, source: Source) -> Tensor:
        """Logits float32 `[N, K]` of every row on the CPU, in order, in eval mode; the processes share the work."""
        return predict(self.network, source, self.hardware, self.processes)

    def state(self) -> dict[str, Any]:
        """Everything that a step depends on except random numbers: weights, statistics, momentum, scale."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a `state`, bit for bit; one without `network` leaves the network as it is."""
        if "network" in state:
            self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def shared_norms(self) -> AbstractContextManager[Any]:
        """A context in which trainable batch norms use the rows of all processes."""
        return SharedBatchNorm() if self.processes.count > 1 else nullcontext()


def predict(network: nn.Module, source: Source, hardware: Hardware, processes: ProcessGroup) -> Tensor:
    """Logits float32 `[N, K]` of every row on the CPU, in order, in eval mode; the processes share the work."""
    network.eval()
    parts = source.parts(processes.count)
    logits = []
    with torch.inference_mode(), _autocast(hardware):
        for inputs, _ in source.batches(ordered_batches(parts[processes.rank]), seed=0):
            logits.append(network(inputs.to(hardware.device, non_blocking=True)).float())
        return processes.join_rows(torch.cat(logits), parts).cpu()


def _autocast(hardware: Hardware) -> AbstractContextManager[Any]:
    if hardware.autocast is None:
        return nullcontext()
    return torch.autocast(hardware.device.type, hardware.autocast)
