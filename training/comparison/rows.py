"""The tables of a comparison as rows of text, for the terminal and for the page."""

from collections.abc import Sequence

from serving.comparison.proportions import Interval
from training.comparison.runs import ComparedRun, Pair
from training.console import counted

SIGNIFICANT = 0.05


def result_rows(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """Each run on all of its own validation images."""
    rows = [["run", "network", "correct", "accuracy (95%)", "log loss", "macro F1", "seconds"]]
    for each in runs:
        facts = each.run.facts
        metrics = facts["metrics"]
        accuracy, report = metrics["accuracy"], facts.get("class_report")
        rows.append(
            [
                each.name,
                each.run.arch,
                f"{metrics['correct']:,}/{metrics['n']:,}",
                f"{100 * accuracy['value']:.2f}% ({100 * accuracy['lower']:.2f} to {100 * accuracy['upper']:.2f})",
                f"{metrics['nll']['value']:.4f}",
                f"{report['macro']['f1']:.4f}" if report else "",
                f"{facts['seconds']['total']:,.0f}",
            ]
        )
    return rows


def pair_rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """Each run against the first, on the images that both have."""
    rows = [["run", "images", "difference in points (95%)", "fixed", "broken", "McNemar p", "log loss, change (95%)"]]
    for pair in pairs:
        comparison, change = pair.comparison, pair.nll_change
        assert comparison.pairs is not None  # there are shared images
        assert comparison.difference is not None
        rows.append(
            [
                pair.second.name,
                f"{comparison.pairs.count:,}",
                points(comparison.difference),
                f"{comparison.pairs.only_second_correct:,}",
                f"{comparison.pairs.only_first_correct:,}",
                f"{comparison.p_value:.3g}",
                f"{change.value:+.4f} ({change.lower:+.4f} to {change.upper:+.4f})" if change else "not recorded",
            ]
        )
    return rows


def class_rows(pair: Pair) -> list[list[str]]:
    """The recall of each class in both runs, the classes that differ most first."""
    rows = [["class", "images", f"recall, {pair.first.name}", pair.second.name, "difference in points (95%)"]]
    for each in pair.comparison.classes:
        recalls = [f"{100 * rate.value:.2f}%" for rate in (each.first, each.second)]
        rows.append([each.name, f"{each.first.count:,}", *recalls, points(each.difference)])
    return rows


def points(difference: Interval) -> str:
    """A difference of proportions in percentage points, with its interval."""
    value, lower, upper = (100 * number for number in (difference.value, difference.lower, difference.upper))
    return f"{value:+.2f} ({lower:+.2f} to {upper:+.2f})"


def verdict(pair: Pair) -> str:
    """Result of the paired test in a sentence."""
    comparison = pair.comparison
    assert comparison.pairs is not None
    assert comparison.p_value is not None
    fixed, broken = comparison.pairs.only_second_correct, comparison.pairs.only_first_correct
    counts = (
        f"{pair.second.name} against {pair.first.name}: {fixed:,} fixed and {broken:,} broken of "
        f"{comparison.pairs.count:,} images"
    )
    if not fixed + broken:
        return f"{counts}: both classify the same images correctly"
    if comparison.p_value >= SIGNIFICANT:
        return f"{counts}: a difference that chance explains (McNemar p = {comparison.p_value:.2g})"
    better = pair.second if fixed > broken else pair.first
    return f"{counts}: {better.name} is more accurate (McNemar p = {comparison.p_value:.2g})"


def warnings(pairs: Sequence[Pair]) -> list[str]:
    """Limits of the comparison: different images, other labels."""
    found = []
    for pair in pairs:
        names = f"{pair.first.name} and {pair.second.name}"
        if not pair.same_images:
            found.append(
                f"{names} were validated on different images: they share {len(pair.rows_N2) + pair.relabelled:,} of "
                f"{len(pair.first.images):,} and {len(pair.second.images):,}, and the paired test is on these"
            )
        if pair.relabelled:
            images = counted(pair.relabelled, "image")
            found.append(f"{images} with another label in {pair.second.name}, not compared")
    return found
