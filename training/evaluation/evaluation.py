"""Evaluates logits: calibration, metrics, confusion matrix and test-time augmentation."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.comparison.proportions import Interval
from serving.image.averaging import temperature_of
from serving.statistics.calibration import Bin, bin_predictions
from serving.statistics.class_report import ClassReport, class_report
from serving.statistics.confusion import ConfusionMatrix
from training.evaluation.metrics import Metrics, measure, top_k_accuracy
from training.evaluation.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperatures, mean_logits, softmax
from training.evaluation.test_time import TestTime, measure_test_time, recommend

MAX_WHOLE_MATRIX = 500
"""Classes of a confusion matrix that is written with its zeros: ten thousand would fill a gigabyte."""

TOP_K = (5,)
"""Values of k of the top-k accuracy."""


@dataclass(frozen=True)
class Evaluation:
    """The results of one network on one set of images."""

    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float32]
    """Probabilities with one view, as the network is deployed: with the temperature."""
    temperatures: dict[int, float]
    """Temperatures by number of views, one view included."""
    metrics: Metrics
    """Metrics with one view. Cross-fitted if the temperature is fitted on these images, to hold for others."""
    uncalibrated: Metrics
    """Metrics at temperature 1."""
    confusion: ConfusionMatrix
    test_time: tuple[TestTime, ...]
    """Comparison with one view for each larger number of views, in order; the last is that of all views."""

    @property
    def temperature(self) -> float:
        """Temperature with one view."""
        return self.temperatures[1]

    @property
    def predicted_N(self) -> NDArray[np.int64]:
        """The most probable class of each image, int64."""
        return np.asarray(self.probabilities_NK.argmax(1))

    @property
    def correct_N(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly."""
        return np.equal(self.predicted_N, self.labels_N)

    def calibration(self) -> tuple[tuple[Bin, ...], tuple[Bin, ...]]:
        """The bins of a calibration plot: as trained, and with the temperature."""
        # softmax(z / T) to the power of T is proportional to softmax(z)
        raw_NK = np.power(self.probabilities_NK.astype(np.float64), self.temperature)
        before = bin_predictions(raw_NK.max(1) / raw_NK.sum(1), self.correct_N)
        return before, bin_predictions(self.probabilities_NK.max(1).astype(np.float64), self.correct_N)

    @property
    def recommended_views(self) -> int:
        """The smallest number of views that helps; 1 if none does."""
        return recommend(self.test_time)

    @property
    def class_report(self) -> ClassReport:
        """Precision, recall, F1 and support."""
        report = class_report(self.confusion)
        assert report is not None  # there are images
        return report

    @property
    def top_k(self) -> dict[int, Interval]:
        """The proportion of images whose label is among the k most probable classes, for more than five classes."""
        counts = [k for k in TOP_K if k < len(self.confusion.classes)]
        return {k: top_k_accuracy(self.probabilities_NK, self.labels_N, k) for k in counts}

    def warnings(self) -> list[str]:
        """Warnings if the network or the data are of little use."""
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
            "metrics": asdict(self.metrics),
            "class_report": self.class_report.to_json(),
            "top_k": {str(k): asdict(interval) for k, interval in self.top_k.items()},
            "test_time": [
                asdict(each) | {"paired": each.paired.to_json(), "helps": each.helps} for each in self.test_time
            ],
            "recommended_views": self.recommended_views,
            **confusion_facts(self.confusion),
            "temperature": self.temperature,
            "temperatures": self.temperatures,
        }


def evaluate(
    logits_VNK: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    classes: tuple[str, ...],
    temperatures: dict[int, float] | None = None,
) -> Evaluation:
    """Calibrate and measure a network on images that it was not trained on.

    Args:
        logits_VNK: float32, [views, N, K]; the first view is what is deployed without averaging.
        labels_N: int64 class indices.
        temperatures: those to use, by number of views; None fits them on these images.
    """
    most = len(logits_VNK)
    if fitted := temperatures is None:
        temperatures = fit_temperatures(logits_VNK, labels_N)
    counts = [count for count in sorted({*temperatures, most}) if count <= most]

    def average(count: int) -> NDArray[np.float32]:
        if fitted:
            return cross_fitted(logits_VNK[:count], labels_N)
        return softmax(mean_logits(logits_VNK[:count]), temperature_of(count, temperatures))

    one_NK, averages = average(1), {count: average(count) for count in counts if count > 1}
    deployed_NK = softmax(logits_VNK[0], temperatures[1])
    return Evaluation(
        labels_N=labels_N,
        probabilities_NK=deployed_NK,
        temperatures=temperatures,
        metrics=measure(one_NK, labels_N),
        uncalibrated=measure(softmax(logits_VNK[0]), labels_N),
        confusion=ConfusionMatrix.from_pairs(classes, labels_N, deployed_NK.argmax(1)),
        test_time=tuple(
            measure_test_time(count, one_NK, average_NK, labels_N) for count, average_NK in averages.items()
        ),
    )


def confusion_facts(confusion: ConfusionMatrix) -> dict[str, Any]:
    """The confusion matrix as JSON: rows of counts or, with many classes, only the entries that are not zero."""
    counts_KK = confusion.counts_KK
    if len(confusion.classes) <= MAX_WHOLE_MATRIX:
        return {"confusion_matrix": counts_KK.tolist()}
    actual, predicted = np.nonzero(counts_KK)
    entries = np.stack([actual, predicted, counts_KK[actual, predicted]], 1)
    return {"confusion_matrix": None, "confusion_entries": entries.tolist()}
