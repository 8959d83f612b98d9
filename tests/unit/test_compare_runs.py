"""Two runs compared on the validation images that they share."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from tests.support.html import assert_valid
from tests.support.runs import run_of
from training.comparison.page import comparison_page
from training.comparison.rows import verdict, warnings
from training.comparison.runs import ComparedRun, Pair, compare_runs, match_images, setting_rows
from training.comparison.text import runs_view
from training.data.images import LabelledImage
from training.fitting.loop import EpochResult
from training.runs.run import RunError

CLASSES = ("ants", "<bees> & co")


def run(
    name: str, images: list[tuple[str, str, int]], correct: list[bool], *, data: str = "/data", lr: float = 0.01
) -> ComparedRun:
    """A run that classifies the images (path below the data, content, label) correctly or not."""
    labels = np.array([label for _, _, label in images])
    predicted = np.where(correct, labels, 1 - labels)
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.8, 0.2).astype(np.float32)
    accuracy = {"value": float(np.mean(correct)), "lower": 0.1, "upper": 0.9}
    metrics = {"correct": sum(correct), "n": len(correct), "accuracy": accuracy, "nll": {"value": 0.3}}
    counts = {"path": data, "train": 20, "valid": len(images)}
    return ComparedRun(
        name,
        run_of(Path("/runs") / name, counts, classes=CLASSES, metrics=metrics, seconds={"total": 7.0}),
        {"seed": 0, "stages": {"head": {"lr": [lr], "cycles": 1}}},
        [EpochResult("head", n, lr, 1 / n, 0.9 / n, 0.9, 1.0, 1.0) for n in (1, 2)],
        [
            LabelledImage(Path(data) / path, label, hashlib.sha256(content.encode()).digest())
            for path, content, label in images
        ],
        probabilities,
    )


def numbered(count: int) -> list[tuple[str, str, int]]:
    return [(f"valid/{k}.jpg", f"content {k}", k % 2) for k in range(count)]


def pair_of(fixed: int, broken: int, same: int) -> tuple[list[ComparedRun], Pair]:
    images = numbered(fixed + broken + same)
    before = [False] * fixed + [True] * (broken + same)
    after = [True] * fixed + [False] * broken + [True] * same
    runs = [run("a", images, before), run("b", images[::-1], after[::-1], lr=0.02)]
    (pair,) = compare_runs(runs)
    return runs, pair


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (3, 1), (2, 14), (30, 9)])
def test_the_paired_test_is_the_exact_binomial_test_of_changed_images(fixed: int, broken: int) -> None:
    _, pair = pair_of(fixed, broken, 40)
    counts = pair.comparison.pairs
    assert counts is not None
    assert (counts.only_second_correct, counts.only_first_correct, counts.count) == (fixed, broken, fixed + broken + 40)
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert pair.comparison.p_value == pytest.approx(expected)
    assert pair.comparison.difference is not None
    assert pair.comparison.difference.value == pytest.approx((fixed - broken) / counts.count)
    assert [len(pair.changed(fixed=which)) for which in (True, False)] == [fixed, broken]
    change = (broken - fixed) * np.log(0.8 / 0.2) / counts.count
    assert pair.nll_change is not None
    assert pair.nll_change.value == pytest.approx(change, abs=1e-6)
    better = {(0, 0): "both classify the same images", (3, 1): "chance explains", (2, 14): "a is more", (30, 9): "b is"}
    assert better[fixed, broken] in verdict(pair)


def test_images_are_matched_by_path_and_content_and_then_by_content() -> None:
    first = run("a", [("x/1", "one", 0), ("x/2", "copy", 0), ("x/3", "copy", 0), ("x/4", "four", 1)], [True] * 4)
    second = run(
        "b",
        [("x/3", "copy", 0), ("moved/1", "one", 0), ("elsewhere", "copy", 0), ("x/4", "another", 1)],
        [True] * 4,
        data="/mnt",
    )
    assert match_images(first, second) == [(0, 1), (1, 2), (2, 0)]


def test_different_images_and_other_labels_are_reported_and_left_out() -> None:
    images = numbered(10)
    relabelled = [("valid/0.jpg", "content 0", 1), *images[1:8]]
    runs = [run("a", images, [True] * 10), run("b", relabelled, [True] * 8)]
    (pair,) = compare_runs(runs)
    assert (len(pair.rows_N2), pair.relabelled, pair.same_images) == (7, 1, False)
    found = warnings([pair])
    assert "they share 8 of 10 and 8" in found[0]
    assert "1 image with another label in b, not compared" in found[1]
    assert all(warning in comparison_page(runs, [pair]) for warning in found)


def test_runs_without_a_common_image_are_rejected() -> None:
    with pytest.raises(RunError, match="share no validation image"):
        compare_runs([run("a", [("1", "one", 0)], [True]), run("b", [("1", "two", 0)], [True])])


def test_the_tables_fit_80_columns_and_show_only_settings_that_differ() -> None:
    runs, pair = pair_of(3, 1, 40)
    assert setting_rows(runs) == [["stages.head.lr", "0.01", "0.02"]]
    output = io.StringIO()
    Console(width=80, file=output).print(runs_view(runs, [pair]))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "stages.head.lr" in text
    assert "cycles" not in text
    assert "43/44" in text


def test_the_page_is_self_contained_and_valid_with_names_escaped() -> None:
    runs, pair = pair_of(20, 14, 10)
    text = comparison_page(runs, [pair])
    assert_valid(text)
    assert "<bees>" not in text
    assert "Fixed by <bdi>b</bdi>: 20, the 12 most certain" in text
    assert "Validation loss by epoch" in text
    assert text.count("<img") == 24
