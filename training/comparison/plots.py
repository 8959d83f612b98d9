"""Curves of several runs in one plot."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.ticker import MaxNLocator

from training.comparison.runs import ComparedRun
from training.reports.figures import BLUE, BLUE2, GREY, ORANGE, Plot, new_figure

Metric = Literal["valid_loss", "valid_accuracy", "train_loss", "lr"]
COLOURS = (BLUE, ORANGE, GREY, BLUE2)
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "^", "s", "D")
MAX_NAME = 24


def plot_metric(runs: Sequence[ComparedRun], metric: Metric, label: str) -> Plot:
    """A metric of the epochs, one line for each run."""
    figure, axes = new_figure(6.4, 3.6)
    for number, each in enumerate(runs):
        values = [getattr(result, metric) for result in each.history]
        if metric == "valid_accuracy":
            values = [100 * value for value in values]
        shown = each.name if len(each.name) <= MAX_NAME else f"…{each.name[1 - MAX_NAME :]}"
        axes.plot(
            [result.epoch for result in each.history],
            values,
            label=shown,
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number // len(COLOURS) % len(STYLES)],
            marker=MARKERS[number % len(MARKERS)],
        )
    axes.set(xlabel="epoch", ylabel=label)
    if metric == "lr":
        axes.set_yscale("log")
    elif metric != "valid_accuracy":
        axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines["right"].set_visible(False)
    legend = figure.legend(frameon=False, loc="outside upper left", ncols=min(len(runs), 4))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is no formula
    return Plot(figure)
