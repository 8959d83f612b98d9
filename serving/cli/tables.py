"""Statistics as tables for a terminal, and as dictionaries for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.class_report import ClassScores, class_report
from serving.statistics.confusion import ConfusionMatrix

MAX_WIDTH = 10_000
MAX_CLASSES_IN_MATRIX = 30
"""Larger confusion matrices fit no terminal; a plot shows them."""


class _Widest:
    """The first of several renderables that fits the console, or else the last one."""

    def __init__(self, *choices: RenderableType) -> None:
        self._choices = choices

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        *others, last = self._choices
        unbounded = options.update(width=MAX_WIDTH)
        fits = (each for each in others if console.measure(each, options=unbounded).maximum <= options.max_width)
        yield next(fits, last)


def statistics_view(models: Sequence[pb.ModelStatistics], *, window: bool = False) -> RenderableType:
    """The confusion matrix and rates of each version, of a time window or all, to be printed by a rich console."""
    if not models:
        return Text("no predictions in the time window" if window else "no predictions yet")
    return Group(*(part for model in models for part in _parts(model)))


def _parts(model: pb.ModelStatistics) -> Iterator[RenderableType]:
    yield Text()
    yield Text(model.model, style="bold")
    yield Text(f"{model.predictions:,} predictions: {model.labels:,} labelled, {model.unlabelled:,} not labelled")
    if model.HasField("drift"):
        yield from _drift_lines(model.drift)
    if model.labels:
        yield from _rates(model)
        yield _calibration_table(model)


def _rates(model: pb.ModelStatistics) -> Iterator[RenderableType]:
    yield Text(f"accuracy {format_rate(model.accuracy)}")
    if model.HasField("matthews_correlation"):
        yield Text(f"Matthews correlation {model.matthews_correlation:.3f}")
    if model.HasField("expected_calibration_error"):
        yield Text(f"expected calibration error {model.expected_calibration_error:.3f}")
    yield _class_table(model)
    too_wide = Text(f"the confusion matrix of {len(model.classes)} classes is too wide to print; draw it with --plot")
    if len(model.classes) <= MAX_CLASSES_IN_MATRIX:
        yield _Widest(_matrix_table(model, numbered=False), _matrix_table(model, numbered=True), too_wide)
    else:
        yield too_wide


def accuracy_view(model: pb.ModelStatistics) -> RenderableType:
    """The accuracy, the rates of each class and the confusion matrix."""
    return Group(*_rates(model))


def format_rate(rate: pb.Rate) -> str:
    """A rate in percent with its confidence interval and sample size."""
    return f"{rate.value:.1%} (95% interval {rate.lower:.1%} to {rate.upper:.1%}, n = {rate.count:,})"


def message_to_dict(message: Message) -> dict[str, Any]:
    """The fields of a message of the API by their names. Undefined values are None; times are text (RFC 3339)."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def statistics_to_dict(model: pb.ModelStatistics) -> dict[str, Any]:
    """The fields of the API's message, with the rows of the confusion matrix as lists, and the averages."""
    return {
        **message_to_dict(model),
        "confusion_matrix": [list(row.predicted) for row in model.confusion_matrix],
        "averages": [asdict(scores) for scores in averages(model)],
    }


def _drift_lines(drift: pb.Drift) -> Iterator[Text]:
    """A heading, and a line for each distribution."""
    if drift.unavailable:
        yield Text(f"drift: {drift.unavailable}", style="dim")
        return
    yield Text(
        f"drift of the last {drift.predictions:,} predictions of the process that answered (at most {drift.window:,}) "
        f"from those on {drift.validation_images:,} validation images:"
    )
    for each in drift.distributions:
        line = Text(f"  {each.name}: ")
        if not each.HasField("p_value"):
            yield line.append("too few predictions", style="dim")
            continue
        line.append(f"PSI {each.stability_index:.3f}, p = {each.p_value:.2g}")
        if each.alarm:
            most = max(each.bins, key=lambda bin_: abs(bin_.share - bin_.expected))
            line.append(f"  differs: {most.label} {most.share:.0%} instead of {most.expected:.0%}", style="red")
        yield line


def _value(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.is_repeated:
        return [message_to_dict(each) if field.message_type else each for each in value]
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return message_to_dict(value) if field.message_type else value


def _table(first: str, *numbers: str | Text) -> Table:
    """A table whose columns of numbers are never cut; the first one is wrapped instead."""
    table = Table()
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _class_table(model: pb.ModelStatistics) -> Table:
    table = _table("class", "precision", "recall", "F1", "support")
    for entry in model.class_statistics:
        table.add_row(
            Text(entry.label),
            _short(entry.precision) if entry.HasField("precision") else "–",
            _short(entry.recall) if entry.HasField("recall") else "–",
            f"{entry.f1:.3f}" if entry.HasField("f1") else "–",
            f"{entry.recall.count:,}",
        )
    for scores in averages(model):
        table.add_row(
            Text(scores.name, style="bold"),
            f"{scores.precision:.1%}",
            f"{scores.recall:.1%}",
            f"{scores.f1:.3f}",
            f"{scores.support:,}",
        )
    return table


def averages(model: pb.ModelStatistics) -> tuple[ClassScores, ...]:
    """Macro and weighted averages over the classes; none without labels."""
    counts_KK = np.array([list(row.predicted) for row in model.confusion_matrix], np.int64)
    if not counts_KK.size:
        return ()
    report = class_report(ConfusionMatrix(tuple(model.classes), counts_KK))
    return report.averages if report else ()


def _calibration_table(model: pb.ModelStatistics) -> Table:
    """The reliability table, without empty bins."""
    table = _table("probability", "mean", "accuracy", "n")
    for each in model.calibration_bins:
        if each.HasField("accuracy"):
            row = (f"{each.lower:.1f}–{each.upper:.1f}", f"{each.mean_probability:.1%}", _short(each.accuracy))
            table.add_row(*row, f"{each.accuracy.count:,}")
    return table


def _short(rate: pb.Rate) -> str:
    return f"{rate.value:.1%} ({100 * rate.lower:.1f}–{100 * rate.upper:.1f})"


def _matrix_table(model: pb.ModelStatistics, *, numbered: bool) -> Table:
    """The confusion matrix; if `numbered`, it is narrow: columns have the numbers that rows show beside the labels."""
    numbers = [str(number) for number in range(1, len(model.classes) + 1)]
    labels = [f"{number:>2} {label}" for number, label in zip(numbers, model.classes, strict=True)]
    table = _table("label ↓  predicted →", *map(Text, numbers if numbered else model.classes))
    if numbered:
        table.padding = (0, 0, 0, 0)
    for actual, (label, row) in enumerate(
        zip(labels if numbered else model.classes, model.confusion_matrix, strict=True)
    ):
        cells = [Text(f"{count:,}", style=_cell_style(actual, k, count)) for k, count in enumerate(row.predicted)]
        table.add_row(Text(label, style="bold"), *cells)
    return table


def _cell_style(actual: int, predicted: int, count: int) -> str:
    if count == 0:
        return "dim"
    return "green" if actual == predicted else "red"
