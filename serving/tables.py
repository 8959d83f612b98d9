"""Statistics as the API gives them in; tables for people, or dictionaries for programs, out."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_CLASSES_IN_MATRIX = 12
"""Wider confusion matrices do not fit a terminal; a plot shows them."""


def print_statistics(console: Console, models: list[pb.ModelStatistics]) -> None:
    """Print each version's confusion matrix and rates."""
    if not models:
        console.print("nothing was predicted yet")
    for model in models:
        console.print()
        console.print(Text(model.model, style="bold"))
        console.print(f"{model.predictions:,} predictions, {model.labels:,} of them labelled", highlight=False)
        if not model.labels:
            continue
        console.print(f"accuracy {format_rate(model.accuracy)}", highlight=False)
        if model.HasField("matthews_correlation"):
            console.print(f"Matthews correlation {model.matthews_correlation:.3f}", highlight=False)
        console.print(_class_table(model))
        if len(model.classes) <= MAX_CLASSES_IN_MATRIX:
            console.print(_matrix_table(model))
        else:
            console.print(f"the matrix of {len(model.classes)} classes is too wide to print; --plot draws it")


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
