"""Figures of a run, as PNG bytes."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from serving.confusion import ConfusionMatrix
from training.learner import EpochResult

matplotlib.use("Agg")

BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a8f98"
MAX_LABELLED_CLASSES = 30


def plot_losses(history: Sequence[EpochResult]) -> bytes:
    """Training and validation loss, and validation accuracy, by epoch."""
    figure, axes = _figure(6.4, 3.6)
    epochs = [result.epoch for result in history]
    axes.plot(epochs, [result.train_loss for result in history], "o-", color=GREY, label="training loss (with dropout)")
    axes.plot(epochs, [result.valid_loss for result in history], "o-", color=BLUE, label="validation loss")
    axes.set(xlabel="epoch", ylabel="negative log likelihood (nats)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy = axes.twinx()
    percent = [100 * result.valid_accuracy for result in history]
    accuracy.plot(epochs, percent, "s--", color=ORANGE, label="validation accuracy (right)")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.spines["top"].set_visible(False)
    lines = axes.get_lines() + accuracy.get_lines()
    figure.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="outside upper left", ncols=2)
    return _png(figure)


def plot_confusion(confusion: ConfusionMatrix) -> bytes:
    """Counts, rows true and columns predicted, shaded by the row's proportion."""
    counts = confusion.counts_KK
    size = len(counts)
    side = min(3.2 + 0.42 * size, 12)
    figure, axes = _figure(side + 0.6, side)
    proportion = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(proportion, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= MAX_LABELLED_CLASSES:
        axes.set_xticks(range(size), confusion.classes, rotation=0 if size <= 4 else 60, ha="center")
        axes.set_yticks(range(size), confusion.classes)
        for row in range(size):
            for column in range(size):
                if counts[row, column] or size <= 6:
                    colour = "white" if proportion[row, column] > 0.5 else "black"
                    fontsize = 13 if size <= 6 else 8
                    text = f"{counts[row, column]:,}"
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=fontsize)
    for side_name in ("top", "right", "left", "bottom"):
        axes.spines[side_name].set_visible(False)
    return _png(figure)


def plot_calibration(bins: Sequence[tuple[float, float, int]]) -> bytes:
    """Accuracy against confidence: on the diagonal, a network is as often right as it says."""
    figure, axes = _figure(4.4, 4.0)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="as sure as right")
    areas = [20 + 180 * count / max(n for _, _, n in bins) for _, _, count in bins]
    axes.scatter([c for c, _, _ in bins], [a for _, a, _ in bins], areas, color=BLUE, label="photos, by confidence")
    low = max(0.0, min(min(c, a) for c, a, _ in bins) - 0.05)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(low, 1.04), ylim=(low, 1.04))
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines["top"].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()
