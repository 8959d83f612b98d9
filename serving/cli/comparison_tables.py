"""Comparisons of two versions as text for a terminal, and as dictionaries for JSON."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.bundle.model_version import parse_resource
from serving.cli.tables import format_rate, message_to_dict
from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_CLASSES_SHOWN = 20


def comparison_to_dict(comparison: pb.GetComparisonResponse) -> dict[str, Any]:
    """The fields of the API's message, with the verdict by its name."""
    described = message_to_dict(comparison)
    if test := described["sequential_test"]:
        test["verdict"] = pb.ComparisonVerdict.Name(test["verdict"]).removeprefix("COMPARISON_VERDICT_")
    return described


def verdict_text(comparison: pb.GetComparisonResponse) -> str:
    """Result of the comparison in a sentence."""
    first, second = _names(comparison)
    test, pairs = comparison.sequential_test, comparison.pairs
    if not comparison.HasField("sequential_test"):
        return "without images that both classified, nothing decides"
    better = {
        pb.COMPARISON_VERDICT_FIRST_IS_BETTER: first,
        pb.COMPARISON_VERDICT_SECOND_IS_BETTER: second,
    }.get(test.verdict)
    if better is not None:
        return f"{better} is better"
    if not test.HasField("labels_needed"):
        return "not decided; the versions do not differ so far"
    count = pairs.both_correct + pairs.only_first_correct + pairs.only_second_correct + pairs.both_incorrect
    more = max(1, test.labels_needed - count)
    return f"not decided; at the present difference, {more:,} more labels decide ({test.labels_needed:,} in all)"


def comparison_view(comparison: pb.GetComparisonResponse) -> RenderableType:
    """The comparison, to be printed by a rich console."""
    return Group(*_parts(comparison))


def evidence_text(comparison: pb.GetComparisonResponse) -> str:
    """The accuracies, the difference and the evidence, in one line."""
    first, second = _names(comparison)
    if not comparison.HasField("difference"):
        return f"{first} or {second} has no labels"
    found = (
        f"{first} {comparison.first_accuracy.value:.1%}, {second} {comparison.second_accuracy.value:.1%}, difference "
        f"{_signed(comparison.difference)}"
    )
    if not comparison.HasField("pairs"):
        return f"{found}, on different images"
    pairs, test = comparison.pairs, comparison.sequential_test
    return (
        f"{found}, only {first} correct {pairs.only_first_correct:,}, only {second} correct "
        f"{pairs.only_second_correct:,}, e-value {_e_value(test.e_value)}"
    )


def _parts(comparison: pb.GetComparisonResponse) -> Iterator[RenderableType]:
    first, second = _names(comparison)
    yield Text(f"{second} against {first}", style="bold")
    for warning in comparison.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    for name, accuracy in ((first, "first_accuracy"), (second, "second_accuracy")):
        shown = format_rate(getattr(comparison, accuracy)) if comparison.HasField(accuracy) else "no labels"
        yield Text(f"{name}: accuracy {shown}")
    if not comparison.HasField("difference"):
        return
    yield Text(f"difference {_signed(comparison.difference)}", style="bold")
    if comparison.HasField("pairs"):
        yield from _evidence(comparison, first, second)
    else:
        yield Text(f"Fisher's exact test: p = {comparison.p_value:.3g}, for one test at a time chosen beforehand")
    yield _class_table(comparison, first, second)
    if (hidden := len(comparison.class_differences) - MAX_CLASSES_SHOWN) > 0:
        yield Text(f"{hidden:,} more classes with smaller differences; --json has all of them")


def _evidence(comparison: pb.GetComparisonResponse, first: str, second: str) -> Iterator[RenderableType]:
    pairs, test = comparison.pairs, comparison.sequential_test
    yield Text(
        f"images: {pairs.both_correct:,} both correct, {pairs.only_first_correct:,} only {first}, "
        f"{pairs.only_second_correct:,} only {second}, {pairs.both_incorrect:,} neither"
    )
    yield Text(f"e-value {_e_value(test.e_value)}: {test.threshold:g} decides; valid at any time")
    yield Text(f"McNemar's exact test: p = {comparison.p_value:.3g}, for one test at a time chosen beforehand")
    yield Text(verdict_text(comparison), style="bold")


def _class_table(comparison: pb.GetComparisonResponse, first: str, second: str) -> Table:
    table = Table()
    table.add_column("class", overflow="fold")
    for name in (f"recall of {first}", second, "difference (95% interval)", "n"):
        table.add_column(name, justify="right", overflow="fold")
    for each in comparison.class_differences[:MAX_CLASSES_SHOWN]:
        counts = dict.fromkeys((each.first.count, each.second.count))  # different for different images
        table.add_row(
            Text(each.label),
            f"{each.first.value:.1%}",
            f"{each.second.value:.1%}",
            _signed(each.difference),
            ", ".join(f"{count:,}" for count in counts),
        )
    return table


def _names(comparison: pb.GetComparisonResponse) -> tuple[str, str]:
    """NAME/VERSION of both."""
    first, second = (
        f"{name}/{version}" for name, version in map(parse_resource, (comparison.first, comparison.second))
    )
    return first, second


def _signed(difference: pb.Difference) -> str:
    return f"{difference.value:+.1%} ({100 * difference.lower:+.1f} to {100 * difference.upper:+.1f})"


def _e_value(value: float) -> str:
    return f"{value:,.2f}" if value < 1e4 else f"{value:.1e}"
