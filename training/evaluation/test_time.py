"""Test-time augmentation (TTA): whether averaging over views helps, and where adaptive TTA needs all views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.comparison.proportions import Interval
from training.evaluation.metrics import Metrics, Paired, compare, mean_interval, measure, nll_of


@dataclass(frozen=True)
class Adaptive:
    """Adaptive TTA: the other views are made only if the first view's confidence is below a threshold."""

    threshold: float
    """Other views are made if the first view's highest probability is below this; 0 never, 1 always."""
    mean_views: float
    correct: int

    def describe(self, images: int) -> str:
        """The correct ones of the images, and how many views they take."""
        views = f"{self.mean_views:.2f} views per image, other views below a confidence of {self.threshold:.3f}"
        return f"{self.correct:,}/{images:,} correct, {views if self.threshold else 'never more than one view'}"


@dataclass(frozen=True)
class TestTime:
    """The results of averaging over a number of views, against one view."""

    views: int
    metrics: Metrics
    paired: Paired
    """Predictions that differ from those of one view."""
    nll_change: Interval
    """Mean change of the negative log likelihood of an image, with its paired bootstrap interval; below 0 is better."""
    nll_z: float
    """Mean change of the negative log likelihood divided by its standard error; 0 if nothing changed."""
    adaptive: Adaptive

    @property
    def helps(self) -> bool:
        """Whether the negative log likelihood falls, by at least its standard error, with no more mistakes.

        Chance alone does so on one set of images of six. A stricter test would miss what helps: on a thousand images
        that are nearly all classified correctly, a tenth of the negative log likelihood is hardly more than that.
        """
        return self.nll_z <= -1 and self.paired.broken <= self.paired.fixed


def measure_test_time(
    views: int, one_NK: NDArray[np.float32], average_NK: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> TestTime:
    """Compare the average over views with one view.

    Args:
        one_NK, average_NK: probabilities float32 of the first view, and of the average.
    """
    change_N = nll_of(average_NK, labels_N) - nll_of(one_NK, labels_N)
    deviation = float(change_N.std())
    return TestTime(
        views=views,
        metrics=measure(average_NK, labels_N),
        paired=compare(one_NK.argmax(1) == labels_N, average_NK.argmax(1) == labels_N),
        nll_change=mean_interval(change_N),
        nll_z=float(change_N.mean()) / deviation * len(change_N) ** 0.5 if deviation else 0.0,
        adaptive=threshold_by_accuracy(views, one_NK, average_NK, labels_N),
    )


def recommend(results: Sequence[TestTime]) -> int:
    """The smallest number of views that helps; 1 if none does."""
    return min((each.views for each in results if each.helps), default=1)


def describe_test_time(results: Sequence[TestTime]) -> str:
    """What follows from the results: the recommended number of views, and why."""
    views = recommend(results)
    if views == 1:
        return (
            "test-time augmentation does not help on these images: no average over views has no more mistakes and a "
            "negative log likelihood that is lower by its standard error; recommended: one view"
        )
    best = next(each for each in results if each.views == views)
    change = best.nll_change
    return (
        f"test-time augmentation helps: {views} views change the negative log likelihood by {change.value:+.4f} "
        f"(95% interval {change.lower:+.4f} to {change.upper:+.4f}), with no more mistakes; recommended: {views} views"
    )


def threshold_by_accuracy(
    views: int, one_NK: NDArray[np.float32], average_NK: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> Adaptive:
    """The lowest threshold such that no higher one classifies fewer images correctly than all views do."""
    confidence = one_NK.max(1).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    correct_one = (one_NK.argmax(1) == labels_N)[order]
    correct_all = (average_NK.argmax(1) == labels_N)[order]
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
        mean_views=1 + float(below.mean()) * (views - 1),
        correct=int(np.where(below[order], correct_all, correct_one).sum()),
    )
