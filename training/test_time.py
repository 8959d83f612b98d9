"""Logits of several views of each photo in; what averaging them buys, and when it is worth it, out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.calibration import mean_probabilities, softmax
from training.metrics import Metrics
from training.paired import Paired


@dataclass(frozen=True)
class Adaptive:
    """Look at one view, and at the others only if the answer to the first is less sure than a threshold."""

    threshold: float
    """Of the first view's highest probability; 0 never looks again, 1 always."""
    mean_views: float
    correct: int


@dataclass(frozen=True)
class TestTime:
    """What averaging over views does."""

    views: int
    metrics: Metrics
    paired: Paired
    """Against one view."""
    adaptive: Adaptive


def choose_threshold(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64], temperature: float) -> Adaptive:
    """The lowest threshold from which on no higher one would have fewer photos right than all views have."""
    one_NK = softmax(logits_VNK[0], temperature)
    confidence = one_NK.max(1).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    right_one = (one_NK.argmax(1) == labels_N)[order]
    right_all = (mean_probabilities(logits_VNK, temperature).argmax(1) == labels_N)[order]
    # correct[k]: the k least sure photos are looked at again
    change = np.cumsum(right_all.astype(np.int64) - right_one.astype(np.int64))
    correct = right_one.sum() + np.concatenate([[0], change])
    fewest_from = np.minimum.accumulate(correct[::-1])[::-1]
    again = int(np.argmax(fewest_from >= correct[-1]))
    ranked = confidence[order]
    if again == 0:
        threshold = 0.0
    elif again == len(ranked):
        threshold = 1.0
    else:
        threshold = float((ranked[again - 1] + ranked[again]) / 2)
    looked_again = confidence < threshold
    return Adaptive(
        threshold=threshold,
        mean_views=1 + float(looked_again.mean()) * (len(logits_VNK) - 1),
        correct=int(np.where(looked_again[order], right_all, right_one).sum()),
    )
