"""Accuracy, likelihood and calibration with intervals, and a paired test of two networks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.comparison.binomial import mcnemar_p
from serving.comparison.proportions import Z_95, Interval, Rate, wilson
from serving.statistics.calibration import bin_predictions, calibration_error_interval, expected_calibration_error

RESAMPLES, MAX_RESAMPLED = 1000, 20_000


@dataclass(frozen=True)
class Metrics:
    """Metrics of probabilities `[N, K]`. Intervals: accuracy Wilson, nll and brier bootstrap."""

    n: int
    correct: int
    accuracy: Interval
    nll: Interval
    """Mean negative log likelihood of the label, in nats."""
    brier: Interval
    """Mean squared distance between probabilities and one-hot labels, summed over classes: 0 to 2 (Brier 1950)."""
    ece: Interval
    """Expected calibration error over 10 bins of confidence, as the server computes it (serving/statistics)."""

    def accuracy_text(self) -> str:
        """As text: 98.33% (295/300)."""
        return f"{100 * self.accuracy.value:.2f}% ({self.correct:,}/{self.n:,})"


def measure(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Metrics:
    """Compare probabilities with labels.

    Args:
        probabilities_NK: float32, rows that sum to 1.
        labels_N: int64 class indices.

    Raises:
        ValueError: if there is nothing to compare.
    """
    n = len(labels_N)
    if n == 0:
        raise ValueError("no images to measure on")
    p_label = probabilities_NK[np.arange(n), labels_N].astype(np.float64)
    correct = probabilities_NK.argmax(1) == labels_N
    squares = np.einsum("nk,nk->n", probabilities_NK, probabilities_NK, dtype=np.float64)
    bins = bin_predictions(probabilities_NK.max(1).astype(np.float64), correct)
    calibration_error = expected_calibration_error(bins)
    assert calibration_error is not None  # there are images
    return Metrics(
        n=n,
        correct=int(correct.sum()),
        accuracy=_interval(wilson(int(correct.sum()), n)),
        nll=mean_interval(nll_of(probabilities_NK, labels_N)),
        brier=mean_interval(squares - 2 * p_label + 1),
        ece=Interval(calibration_error, *calibration_error_interval(bins)),
    )


def _interval(rate: Rate) -> Interval:
    return Interval(rate.value, rate.lower, rate.upper)


def nll_of(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Negative log likelihood of each row's label in nats, float64 `[N]`; of a probability of 0 that of 1e-12."""
    p_label = probabilities_NK[np.arange(len(labels_N)), labels_N].astype(np.float64)
    nll_N: NDArray[np.float64] = -np.log(np.maximum(p_label, 1e-12))
    return nll_N


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """The mean with its 95% bootstrap interval; the same rows are drawn for any values of the same number."""
    mean = float(values.mean())
    n = len(values)
    if n > MAX_RESAMPLED:  # the normal approximation is as good
        half = Z_95 * float(values.std()) / len(values) ** 0.5
        return Interval(mean, mean - half, mean + half)
    samples = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    lower, upper = np.quantile(values[samples].mean(1), (0.025, 0.975))
    return Interval(mean, float(lower), float(upper))


def top_k_accuracy(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64], k: int) -> Interval:
    """The proportion of images whose label is among the k most probable classes; Wilson interval.

    Of equally probable classes, the label counts as the last: the result is never too high.
    """
    p_label_N1 = np.take_along_axis(probabilities_NK, labels_N[:, None], 1)
    before_N = (probabilities_NK >= p_label_N1).sum(1) - 1
    return _interval(wilson(int((before_N < k).sum()), len(labels_N)))


@dataclass(frozen=True)
class Paired:
    """Predictions that changed from one network to another."""

    fixed: int
    """Images that only the second classifies correctly."""
    broken: int
    """Images that only the first classifies correctly."""
    p_value: float
    """McNemar's exact test, two-sided (McNemar 1947)."""

    def to_json(self) -> dict[str, Any]:
        return {"gained": self.fixed, "lost": self.broken, "p_value": self.p_value}  # as run.json has always named them


def compare(before_N: NDArray[np.bool_], after_N: NDArray[np.bool_]) -> Paired:
    """Compare two networks, image by image: bool `[N]`, whether each classifies correctly."""
    fixed, broken = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    return Paired(fixed, broken, mcnemar_p(broken, fixed))
