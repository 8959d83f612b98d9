"""Statistics as the API gives them in; tables for people, or dictionaries for programs, out."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

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
