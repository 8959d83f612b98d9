"""Statistics as the API gives them in; tables for people, or dictionaries for programs, out.

A server to watch in; its statistics in the terminal, kept up to date until Ctrl-C, out.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grpc
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.cli.common import raise_once_nobody_reads
from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_CLASSES_IN_MATRIX = 12
"""Wider confusion matrices do not fit a terminal; a plot shows them."""


def print_statistics(console: Console, models: Sequence[pb.ModelStatistics]) -> None:
    """Print each version's confusion matrix and rates."""
    console.print(statistics_view(models))


def statistics_view(models: Sequence[pb.ModelStatistics]) -> RenderableType:
    """Each version's confusion matrix and rates, for a console."""
    if not models:
        return Text("nothing was predicted yet")
    return Group(*(part for model in models for part in _parts(model)))


def _parts(model: pb.ModelStatistics) -> Iterator[RenderableType]:
    yield Text()
    yield Text(model.model, style="bold")
    yield Text(f"{model.predictions:,} predictions, {model.labels:,} of them labelled, {model.unlabelled:,} not")
    if not model.labels:
        return
    yield Text(f"accuracy {format_rate(model.accuracy)}")
    if model.HasField("matthews_correlation"):
        yield Text(f"Matthews correlation {model.matthews_correlation:.3f}")
    if model.HasField("expected_calibration_error"):
        yield Text(f"expected calibration error {model.expected_calibration_error:.3f}")
    yield _class_table(model)
    if len(model.classes) <= MAX_CLASSES_IN_MATRIX:
        yield _matrix_table(model)
    else:
        yield Text(f"the matrix of {len(model.classes)} classes is too wide to print; --plot draws it")
    yield _calibration_table(model)


def format_rate(rate: pb.Rate) -> str:
    """A rate in percent, with its interval."""
    return f"{rate.value:.1%} (95% interval {rate.lower:.1%} to {rate.upper:.1%}, n = {rate.count:,})"


def statistics_to_dict(model: pb.ModelStatistics) -> dict[str, Any]:
    """The same fields as in the API, with numbers as numbers; what is undefined is None."""
    return {
        "model": model.model,
        "classes": list(model.classes),
        "confusion_matrix": [list(row.predicted) for row in model.confusion_matrix],
        "predictions": model.predictions,
        "labels": model.labels,
        "accuracy": _rate_to_dict(model.accuracy) if model.HasField("accuracy") else None,
        "class_statistics": [
            {
                "label": entry.label,
                "precision": _rate_to_dict(entry.precision) if entry.HasField("precision") else None,
                "recall": _rate_to_dict(entry.recall) if entry.HasField("recall") else None,
                "f1": entry.f1 if entry.HasField("f1") else None,
            }
            for entry in model.class_statistics
        ],
        "matthews_correlation": model.matthews_correlation if model.HasField("matthews_correlation") else None,
        "unlabelled": model.unlabelled,
        "calibration_bins": [
            {
                "lower": each.lower,
                "upper": each.upper,
                "mean_probability": each.mean_probability if each.HasField("mean_probability") else None,
                "accuracy": _rate_to_dict(each.accuracy) if each.HasField("accuracy") else None,
            }
            for each in model.calibration_bins
        ],
        "expected_calibration_error": (
            model.expected_calibration_error if model.HasField("expected_calibration_error") else None
        ),
        "last_label_time": model.last_label_time.ToJsonString() if model.HasField("last_label_time") else None,
    }


def _rate_to_dict(rate: pb.Rate) -> dict[str, float | int]:
    return {"value": rate.value, "lower": rate.lower, "upper": rate.upper, "count": rate.count}


def _class_table(model: pb.ModelStatistics) -> Table:
    table = Table("class", "precision", "recall", "F1")
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in model.class_statistics:
        table.add_row(
            Text(entry.label),
            _short(entry.precision) if entry.HasField("precision") else "–",
            _short(entry.recall) if entry.HasField("recall") else "–",
            f"{entry.f1:.3f}" if entry.HasField("f1") else "–",
        )
    return table


def _calibration_table(model: pb.ModelStatistics) -> Table:
    """Bins that hold no prediction are left out."""
    table = Table("probability", "mean", "right", "n")
    for column in table.columns[1:]:
        column.justify = "right"
    for each in model.calibration_bins:
        if each.HasField("accuracy"):
            row = (f"{each.lower:.1f}–{each.upper:.1f}", f"{each.mean_probability:.1%}", _short(each.accuracy))
            table.add_row(*row, f"{each.accuracy.count:,}")
    return table


def _short(rate: pb.Rate) -> str:
    return f"{rate.value:.1%} ({100 * rate.lower:.1f}–{100 * rate.upper:.1f})"


def _matrix_table(model: pb.ModelStatistics) -> Table:
    table = Table("true ↓  predicted →")
    for label in model.classes:
        table.add_column(Text(label), justify="right")
    for actual, (label, row) in enumerate(zip(model.classes, model.confusion_matrix, strict=True)):
        cells = [Text(f"{count:,}", style=_cell_style(actual, k, count)) for k, count in enumerate(row.predicted)]
        table.add_row(Text(label, style="bold"), *cells)
    return table


def _cell_style(actual: int, predicted: int, count: int) -> str:
    if count == 0:
        return "dim"
    return "green" if actual == predicted else "red"


RETRY_S = 1.0


class _View(Protocol):
    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        """Statistics that are up to date."""

    def wait(self, reason: str) -> None:
        """They are no longer, and why."""


def watch_statistics(client: Client, model: str, interval_s: float, console: Console, *, as_json: bool) -> None:
    """Show statistics whenever they change, until KeyboardInterrupt. A server that goes away is waited for.

    On a terminal the picture is redrawn in its place; elsewhere each is printed below the one before, and as JSON each
    is a line.

    Raises:
        ClientError: if the server does not answer from the first, or refuses.
        BrokenPipeError: once nobody reads standard output any more.
    """
    raise_once_nobody_reads(sys.stdout.fileno())
    if as_json:
        _follow(client, model, interval_s, _Json())
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:  # what does not fit is left out at the bottom
            _follow(client, model, interval_s, _Terminal(live))
    else:
        _follow(client, model, interval_s, _Pages(console))


def _follow(client: Client, model: str, interval_s: float, view: _View) -> None:
    begun, waiting = False, False
    while True:
        reason = "the server is stopping"
        try:
            for models in client.watch_statistics(model, min_interval_s=interval_s):
                begun, waiting = True, False
                view.show(models)
        except ClientError as error:
            if not begun or error.code != grpc.StatusCode.UNAVAILABLE:
                raise
            reason = error.message
        if not waiting:
            view.wait(f"{reason}; trying again until it answers")
            waiting = True
        time.sleep(RETRY_S)


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._models: Sequence[pb.ModelStatistics] = ()
        self._at = ""

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._models, self._at = models, time.strftime("%H:%M:%S")
        self._draw(Text(f"{self._at}; Ctrl-C ends", style="dim"))

    def wait(self, reason: str) -> None:
        self._draw(Text(f"as of {self._at}: {reason}", style="yellow"))

    def _draw(self, line: Text) -> None:
        self._live.update(Group(line, statistics_view(self._models)), refresh=True)


class _Pages:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._console.print(Text(time.strftime("%H:%M:%S")), statistics_view(models))

    def wait(self, reason: str) -> None:
        print(f"pawserve: {reason}", file=sys.stderr, flush=True)


class _Json:
    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        print(json.dumps({"models": [statistics_to_dict(model) for model in models]}, ensure_ascii=False), flush=True)

    def wait(self, reason: str) -> None:
        print(f"pawserve: {reason}", file=sys.stderr, flush=True)
