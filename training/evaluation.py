"""Logits and truth in; everything that a run says about how well it does out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.confusion import ConfusionMatrix
from training.calibration import cross_fitted, fit_temperature, softmax
from training.metrics import Metrics, measure


@dataclass(frozen=True)
class Evaluation:
    """Of one network on one set of photos."""

    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]
    """As the network is deployed: with the temperature fitted on all of these photos."""
    temperature: float
    metrics: Metrics
    """Cross-fitted: what the temperature buys on photos that it was not fitted on."""
    uncalibrated: Metrics
    """At temperature 1."""
    confusion: ConfusionMatrix


def evaluate(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], classes: tuple[str, ...]) -> Evaluation:
    """Calibrate and measure a network on photos that it was not trained on.

    Args:
        logits_NK: float32, one row a photo.
        labels_N: int64, true class indices.
    """
    temperature = fit_temperature(logits_NK, labels_N)
    return Evaluation(
        labels_N=labels_N,
        probabilities_NK=softmax(logits_NK, temperature),
        temperature=temperature,
        metrics=measure(cross_fitted(logits_NK, labels_N), labels_N),
        uncalibrated=measure(softmax(logits_NK), labels_N),
        confusion=ConfusionMatrix.from_pairs(classes, labels_N, logits_NK.argmax(1)),
    )
