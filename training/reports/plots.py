"""The plots of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from serving.statistics.calibration import Bin
from serving.statistics.confusion import ConfusionMatrix
from training.fitting.loop import EpochResult
from training.fitting.lr_finder import RECIPE, LrCurve
from training.fitting.schedule import learning_rate, one_cycle_momentum
from training.recipes.stage import Stage
from training.reports.figures import BLUE, BLUE2, BLUE3, GREY, INK, ORANGE, Plot, new_figure

MAX_LABELLED_CLASSES = 30
MAX_CELLS = 500
POINTS = 400
"""Samples of a schedule."""
BASE = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""
LAST_RESORT = "Last Resort"
"""Fonts that have a box for every character."""
MAX_LENGTH = 28


@dataclass(frozen=True)
class Lettering:
    """Class names and fonts for a plot."""

    families: list[str]
    """Fonts to search for each character, in order."""
    names: list[str]
    """Names as given, long ones shortened; one that no installed font can draw becomes its number, as in '#3'."""
    missing: int
    """Names that no installed font can draw."""


def lettering(names: Sequence[str]) -> Lettering:
    """Choose installed fonts that together draw as many of the names as possible."""
    families = [BASE]
    drawn: list[str] = []
    missing = 0
    covered = set(_characters(BASE))
    for number, name in enumerate(names):
        wanted = {ord(character) for character in name}
        for family in () if wanted <= covered else _others():
            if (wanted - covered) & _characters(family):
                families.append(family)
                covered |= _characters(family)
            if wanted <= covered:
                break
        missing += not wanted <= covered
        drawn.append(_shortened(name) if wanted <= covered else f"#{number}")
    return Lettering(families, drawn, missing)


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 9]}…{name[-8:]}"


@cache
def _files() -> dict[str, str]:
    """Upright fonts of regular weight: family -> file."""
    upright = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    return {font.name: font.fname for font in upright if not font.name.startswith(LAST_RESORT)}


@cache
def _others() -> tuple[str, ...]:
    """The other families, those for text on screens first."""
    return tuple(sorted(_files().keys() - {BASE}, key=lambda name: ("Sans" not in name, name)))


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(get_font(_files()[family]).get_charmap())


@dataclass(frozen=True)
class RatesOverTime:
    """The learning rates of one step's layer groups, sampled."""

    epochs: list[float]
    rates: list[list[float]]
    """One list for each trained group, first to last."""
    momentum: list[float]


def rates_over_time(
    stage: Stage, rates: Sequence[float], *, per_epoch: int, momentum: float, first_epoch: int
) -> RatesOverTime:
    """Sample a stage's schedule.

    Args:
        per_epoch: steps in an epoch.
        momentum: used if the schedule has none of its own.
        first_epoch: epochs before this stage.
    """
    count = stage.epochs * per_epoch
    steps = sorted({*range(0, count, max(count // POINTS, 1)), count - 1})
    cycles = {"first_cycle": stage.cycle_len * per_epoch, "cycle_mult": stage.cycle_mult}
    one_cycle = stage.schedule == "one-cycle"
    return RatesOverTime(
        epochs=[first_epoch + step / per_epoch for step in steps],
        rates=[[learning_rate(stage.schedule, step, lr=rate, **cycles) for step in steps] for rate in rates],
        momentum=[one_cycle_momentum(step, **cycles) if one_cycle else momentum for step in steps],
    )


def plot_losses(history: Sequence[EpochResult]) -> Plot:
    """Training and validation loss, and validation accuracy, by epoch; a line where a stage ends."""
    figure, axes = new_figure(6.4, 3.6)
    epochs = [result.epoch for result in history]
    axes.plot(epochs, [result.train_loss for result in history], "o-", color=GREY, label="training loss (with dropout)")
    axes.plot(epochs, [result.valid_loss for result in history], "o-", color=BLUE, label="validation loss")
    axes.set(xlabel="epoch", ylabel="negative log likelihood (nats)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for last, first in zip(history, history[1:], strict=False):
        if last.stage != first.stage:
            axes.axvline(last.epoch + 0.5, color=GREY, linewidth=0.8, linestyle=":")
    accuracy = axes.twinx()
    percent = [100 * result.valid_accuracy for result in history]
    accuracy.plot(epochs, percent, "s--", color=ORANGE, label="validation accuracy (right axis)")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.spines["top"].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2)
    return Plot(figure)


def plot_rates(parts: Sequence[RatesOverTime]) -> Plot:
    """Learning rate of each layer group, and momentum, over the epochs."""
    figure, axes = new_figure(6.4, 3.6)
    momentum = axes.twinx()
    shades = (BLUE, BLUE2, BLUE3)
    for part in parts:
        for row, rates in enumerate(reversed(part.rates)):
            label = ("last group", "group before", "earlier groups")[min(row, 2)]
            known = label in [line.get_label() for line in axes.get_lines()]
            axes.plot(part.epochs, rates, color=shades[min(row, 2)], label=None if known else label)
        momentum.plot(part.epochs, part.momentum, ":", color=ORANGE)
    axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    momentum.get_lines()[0].set_label("momentum (right axis)")
    momentum.set(ylabel="momentum", ylim=(0, 1.02))
    momentum.spines["top"].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=4)
    return Plot(figure)


def plot_lr_curve(curve: LrCurve) -> Plot:
    """Smoothed loss against the learning rate, with the suggestion of each rule."""
    figure, axes = new_figure(6.4, 3.6)
    lrs, losses = curve.shown()
    recommended, _ = curve.recommendation()
    axes.plot(lrs, losses, color=BLUE)
    axes.set(xlabel="learning rate (last layer group)", ylabel="loss, smoothed (nats)", xscale="log")
    for (rule, rate), marker in zip(curve.suggestions().items(), ("o", "^", "s"), strict=True):
        loss = losses[min(range(len(lrs)), key=lambda index: abs(lrs[index] - rate))]
        chosen = recommended is not None and rule == RECIPE
        note = " (recommended)" if chosen else ""
        axes.plot([rate], [loss], marker, color=ORANGE if chosen else GREY, label=f"{rule}: {rate:.2g}{note}")
    if recommended is None:
        axes.set_title("no clear minimum", fontsize=10)
    axes.legend(frameon=False)
    return Plot(figure)


def plot_confusion(confusion: ConfusionMatrix) -> Plot:
    """Counts, rows by label and columns by prediction, shaded by the row's proportion.

    Beyond 30 classes their numbers stand for names, as in the report's table; beyond 500 each cell is the sum of
    several.
    """
    size = len(confusion.classes)
    counts = _binned(confusion.counts_KK)
    side = min(3.2 + 0.42 * size, 8)
    figure, axes = new_figure(side + 0.6, side)
    proportion = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    extent = (-0.5, size - 0.5, size - 0.5, -0.5)
    # on any background: the shade is in the opacity; its root makes small shares visible
    shades = np.full((*proportion.shape, 4), to_rgba(BLUE))
    shades[..., 3] = np.sqrt(proportion)
    axes.imshow(shades, extent=extent, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="label")
    if size <= MAX_LABELLED_CLASSES:
        letters = lettering(confusion.classes)
        upright = size <= 4 and max(map(len, letters.names)) <= 12
        axes.set_xticks(range(size), letters.names, rotation=0 if upright else 90, ha="center")
        axes.set_yticks(range(size), letters.names)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set(parse_math=False, family=letters.families)  # a dollar sign in a name is no formula
        for (row, column), count in np.ndenumerate(counts):
            if count or size <= 6:
                colour, fontsize = "white" if proportion[row, column] > 0.4 else INK, 13 if size <= 6 else 8
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=fontsize)
        if letters.missing:
            note = "#N: the class numbered N from 0,\nwhose name no installed font can draw"
            figure.suptitle(note, fontsize=8)  # unlike a title of the axes, as wide as the figure
    else:
        axes.set(xlabel="predicted (number of the class in the report's table of classes)", ylabel="label")
    axes.spines[:].set_visible(False)
    return Plot(figure)


def _binned(counts_KK: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum neighbours, so that at most 500 rows and columns are left."""
    size = len(counts_KK)
    if size <= MAX_CELLS:
        return counts_KK
    starts = np.unique(np.linspace(0, size, MAX_CELLS, endpoint=False).astype(int))
    binned: NDArray[np.int64] = np.add.reduceat(np.add.reduceat(counts_KK, starts, 0), starts, 1)
    return binned


def plot_calibration(before: Sequence[Bin], after: Sequence[Bin]) -> Plot:
    """Accuracy against confidence, before and after temperature scaling, above a histogram of the confidence.

    The diagonal is perfect calibration; bars are 95% intervals.
    """
    figure, unused = new_figure(5.4, 5.4)
    unused.remove()
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="perfectly calibrated")
    low = 1.0
    for bins, colour, marker, name in ((before, ORANGE, "^", "as trained"), (after, BLUE, "o", "calibrated")):
        filled = [(each.mean_probability or 0.0, each.accuracy) for each in bins if each.accuracy is not None]
        x, y = [mean for mean, _ in filled], [accuracy.value for _, accuracy in filled]
        reach = [[each.value - each.lower for _, each in filled], [each.upper - each.value for _, each in filled]]
        axes.errorbar(x, y, reach, color=colour, marker=marker, linewidth=1.2, elinewidth=0.8, label=name)
        low = min(low, *x, *y)
    places = [(each.lower + each.upper) / 2 for each in after]
    width = 0.42 * (after[0].upper - after[0].lower)
    for bins, colour, shift in ((before, ORANGE, -0.5), (after, BLUE, 0.5)):
        counts = [each.accuracy.count if each.accuracy else 0 for each in bins]
        histogram.bar([place + shift * width for place in places], counts, width, color=colour)
    histogram.set(xlabel="confidence", ylabel="images", xlim=(max(0.0, low - 0.1), 1.02))
    axes.set(ylabel="accuracy", ylim=(max(0.0, low - 0.1), 1.04))
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=3)
    for each in (axes, histogram):
        each.spines[["top", "right"]].set_visible(False)
    return Plot(figure)
