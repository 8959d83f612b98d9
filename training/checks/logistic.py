"""Logistic regression on projected activations, fitted in blocks so that memory does not grow with images x classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 8192
"""Rows whose logits are in memory together."""
PENALTY = 100.0
"""Factor of the squared weights, beside the sum of the losses; a head that fits every label finds no incorrect one."""
STEPS = 60


@dataclass(frozen=True)
class LogisticHead:
    """Weights float32 `[D, K]` and biases `[K]`."""

    weights_DK: Tensor
    biases_K: Tensor

    def probabilities(self, rows_ND: NDArray[np.float16]) -> Iterator[NDArray[np.float32]]:
        """float32 `[n, K]`, block by block."""
        for block in _blocks(rows_ND):
            yield torch.softmax(block @ self.weights_DK + self.biases_K, 1).numpy()


def fit_logistic(rows_ND: NDArray[np.float16], labels_N: NDArray[np.int64], classes: int) -> LogisticHead:
    """Minimise the negative log likelihood and an L2 penalty with L-BFGS, from zero: the same rows, the same weights.

    Args:
        rows_ND: standardised, float16.
        labels_N: int64 class indices.
        classes: K.
    """
    total, width = rows_ND.shape
    parameters = torch.zeros(width + 1, classes)
    parameters.requires_grad_(True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")
    labels = torch.from_numpy(labels_N)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = PENALTY / total / 2 * (parameters[:-1] ** 2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        for start, block in zip(range(0, total, BLOCK), _blocks(rows_ND), strict=True):
            logits = block @ parameters[:-1] + parameters[-1]
            part = torch.nn.functional.cross_entropy(logits, labels[start : start + BLOCK], reduction="sum") / total
            part.backward()
            value = value.detach() + part.detach()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = parameters.detach()
    return LogisticHead(fitted[:-1], fitted[-1])


def _blocks(rows_ND: NDArray[np.float16]) -> Iterator[Tensor]:
    for start in range(0, len(rows_ND), BLOCK):
        yield torch.from_numpy(rows_ND[start : start + BLOCK]).float()
