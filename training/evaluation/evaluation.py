"""Evaluates logits: calibration, metrics, confusion matrix and test-time augmentation."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.statistics.confusion import ConfusionMatrix
from training.evaluation.metrics import Metrics, Paired, compare, measure
from training.evaluation.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, mean_probabilities, softmax


@dataclass(frozen=True)
class Adaptive:
    """Adaptive TTA: the other views are made only if the first view's confidence is below a threshold."""

    threshold: float
    """Of the first view's highest probability; 0 never makes other views, 1 always."""
    mean_views: float
    correct: int


@dataclass(frozen=True)
class TestTime:
    """Test-time augmentation: the results of averaging over views."""

    views: int
    metrics: Metrics
    paired: Paired
    """Against one view."""
    adaptive: Adaptive


def choose_threshold(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64], temperature: float) -> Adaptive:
    """The lowest threshold such that no higher one classifies fewer images correctly than all views do."""
    one_NK = softmax(logits_VNK[0], temperature)
    confidence = one_NK.max(1).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    correct_one = (one_NK.argmax(1) == labels_N)[order]
    correct_all = (mean_probabilities(logits_VNK, temperature).argmax(1) == labels_N)[order]
    # correct[k]: all views for the k images of lowest confidence
    change = np.cumsum(correct_all.astype(np.int64) - correct_one.astype(np.int64))
    correct = correct_one.sum() + np.concatenate([[0], change])
    fewest_from = np.minimum.accumulate(correct[::-1])[::-1]
    count = int(np.argmax(fewest_from >= correct[-1]))
    ranked = confidence[order]
    threshold = float(np.concatenate([[0.0], (ranked[:-1] + ranked[1:]) / 2, [1.0]])[count])
    below = confidence < threshold
    return Adaptive(
        threshold=threshold,
        mean_views=1 + float(below.mean()) * (len(logits_VNK) - 1),
        correct=int(np.where(below[order], correct_all, correct_one).sum()),
    )


MAX_WHOLE_MATRIX = 500
"""Classes of a confusion matrix that is written with its zeros: ten thousand would fill a gigabyte."""


@dataclass(frozen=True)
class Evaluation:
    """The results of one network on one set of images."""

    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]
    """Of one view, as the network is deployed: with the temperature."""
    temperature: float
    metrics: Metrics
    """Of one view. Cross-fitted if the temperature is fitted on these images, to hold for others."""
    uncalibrated: Metrics
    """At temperature 1."""
    confusion: ConfusionMatrix
    test_time: TestTime | None
    """With more than one view."""

    def warnings(self) -> list[str]:
        """What the figures say about a network or data that are of little use."""
        found = []
        counts = np.bincount(self.labels_N)
        share, accuracy = counts.max() / len(self.labels_N), self.metrics.accuracy
        if accuracy.lower <= share:
            name = self.confusion.classes[int(counts.argmax())]
            found.append(
                f"accuracy {100 * accuracy.value:.2f}% is not clearly above {100 * share:.2f}%, the share of {name!r}: "
                "check the labels, the learning rate and the number of images"
            )
        if not 1.001 * LOWEST < self.temperature < 0.999 * HIGHEST:
            why = "makes hardly any mistakes, or is far too uncertain"
            if self.temperature > 1:
                why = "is far too certain of its mistakes"
            found.append(
                f"the temperature is {self.temperature:.3g}, at the bound of {LOWEST:g} to {HIGHEST:g}, since the "
                f"network {why}: its probabilities are not calibrated; validate on more images"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics.to_json(),
            "test_time": None if self.test_time is None else asdict(self.test_time),
            **confusion_facts(self.confusion),
            "temperature": self.temperature,
        }


def evaluate(
    logits_VNK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    classes: tuple[str, ...],
    temperature: float | None = None,
) -> Evaluation:
    """Calibrate and measure a network on images that it was not trained on.

    Args:
        logits_VNK: float32, [views, N, K]; the first view is what is deployed without averaging.
        labels_N: int64 class indices.
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
    """The confusion matrix as JSON: rows of counts or, with many classes, only the entries that are not zero."""
    counts_KK = confusion.counts_KK
    if len(confusion.classes) <= MAX_WHOLE_MATRIX:
        return {"confusion_matrix": counts_KK.tolist()}
    actual, predicted = np.nonzero(counts_KK)
    entries = np.stack([actual, predicted, counts_KK[actual, predicted]], 1)
    return {"confusion_matrix": None, "confusion_entries": entries.tolist()}
