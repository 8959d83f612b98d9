"""Logits of several views of each image in; what averaging them buys, and when it is worth it, out.

Logits and truth in; everything that a run says about how well it does out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.statistics.confusion import ConfusionMatrix
from training.evaluation.metrics import Metrics, Paired, compare, measure
from training.evaluation.temperature import cross_fitted, fit_temperature, mean_probabilities, softmax


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
    """The lowest threshold from which on no higher one would have fewer images right than all views have."""
    one_NK = softmax(logits_VNK[0], temperature)
    confidence = one_NK.max(1).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    right_one = (one_NK.argmax(1) == labels_N)[order]
    right_all = (mean_probabilities(logits_VNK, temperature).argmax(1) == labels_N)[order]
    # correct[k]: the k least sure images are looked at again
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


MAX_WHOLE_MATRIX = 500
"""Classes of a confusion matrix that is written whole: ten thousand would fill a gigabyte with zeros."""


@dataclass(frozen=True)
class Evaluation:
    """Of one network on one set of images."""

    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]
    """Of one view, as the network is deployed: with the temperature."""
    temperature: float
    metrics: Metrics
    """Of one view. Cross-fitted where the temperature is fitted on these images: what it buys on others."""
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
    """Calibrate and measure a network on images that it was not trained on.

    Args:
        logits_VNK: float32, for each view one row an image; the first view is what is deployed without averaging.
        labels_N: int64, true class indices.
        temperature: the one to use; None fits it on these images.
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
