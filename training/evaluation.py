"""Logits and truth in; everything that a run says about how well it does out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.confusion import ConfusionMatrix
from training.calibration import cross_fitted, fit_temperature, mean_probabilities, softmax
from training.metrics import Metrics, measure
from training.paired import compare
from training.test_time import TestTime, choose_threshold

MAX_WHOLE_MATRIX = 500
"""Classes of a confusion matrix that is written whole: ten thousand would fill a gigabyte with zeros."""


@dataclass(frozen=True)
class Evaluation:
    """Of one network on one set of photos."""

    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]
    """Of one view, as the network is deployed: with the temperature."""
    temperature: float
    metrics: Metrics
    """Of one view. Cross-fitted where the temperature is fitted on these photos: what it buys on others."""
    uncalibrated: Metrics
    """At temperature 1."""
    confusion: ConfusionMatrix
    test_time: TestTime | None
    """With more than one view."""


def evaluate(
    logits_VNK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    classes: tuple[str, ...],
    temperature: float | None = None,
) -> Evaluation:
    """Calibrate and measure a network on photos that it was not trained on.

    Args:
        logits_VNK: float32, for each view one row a photo; the first view is what is deployed without averaging.
        labels_N: int64, true class indices.
        temperature: the one to use; None fits it on these photos.
    """
    one_NK = logits_VNK[0]
    if temperature is None:
        temperature = fit_temperature(one_NK, labels_N)
        one, every = cross_fitted(logits_VNK[:1], labels_N), cross_fitted(logits_VNK, labels_N)
    else:
        one, every = softmax(one_NK, temperature), mean_probabilities(logits_VNK, temperature)
    test_time = None
    if len(logits_VNK) > 1:
        test_time = TestTime(
            views=len(logits_VNK),
            metrics=measure(every, labels_N),
            paired=compare(one_NK.argmax(1) == labels_N, every.argmax(1) == labels_N),
            adaptive=choose_threshold(logits_VNK, labels_N, temperature),
        )
    return Evaluation(
        labels_N=labels_N,
        probabilities_NK=softmax(one_NK, temperature),
        temperature=temperature,
        metrics=measure(one, labels_N),
        uncalibrated=measure(softmax(one_NK), labels_N),
        confusion=ConfusionMatrix.from_pairs(classes, labels_N, one_NK.argmax(1)),
        test_time=test_time,
    )


def confusion_facts(confusion: ConfusionMatrix) -> dict[str, Any]:
    """The confusion matrix as JSON has it: rows of counts or, with very many classes, only what is not zero."""
    counts_KK = confusion.counts_KK
    if len(confusion.classes) <= MAX_WHOLE_MATRIX:
        return {"confusion_matrix": counts_KK.tolist()}
    actual, predicted = np.nonzero(counts_KK)
    entries = np.stack([actual, predicted, counts_KK[actual, predicted]], 1)
    return {"confusion_matrix": None, "confusion_entries": entries.tolist()}
