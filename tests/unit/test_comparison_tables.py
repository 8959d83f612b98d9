"""Comparisons on a terminal: narrow, readable with any number of classes, and in plain sentences."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from serving.api.comparisons import VersionComparison
from serving.api.pawserve.comparison import to_comparison
from serving.bundle.model_version import ModelVersion
from serving.cli.comparison_tables import comparison_to_dict, comparison_view, evidence_text, verdict_text
from serving.comparison.paired import compare_pairs
from serving.comparison.unpaired import compare_groups
from serving.pb.pawserve.v1 import classifier_pb2 as pb

THREE, FOUR = ModelVersion("pets", 3), ModelVersion("pets", 4)


def paired(*cases: tuple[int, int, int, int], names: tuple[str, ...] = ("cats", "dogs")) -> pb.GetComparisonResponse:
    """Of (both, only the first, only the second, neither) for each class."""
    counts_K22 = np.array([[[neither, second], [first, both]] for both, first, second, neither in cases])
    return to_comparison(VersionComparison(THREE, FOUR, compare_pairs(names, counts_K22), 0, ()))


def printed(comparison: pb.GetComparisonResponse, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_view(comparison))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_a_comparison_of_a_thousand_classes_fits_and_shows_the_largest_differences(width: int) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"breed {index}" for index in range(1_000))
    cases = [tuple(row) for row in rng.integers(0, 30, (1_000, 4)).tolist()]
    text = printed(paired(*cases, names=names), width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) < 80
    assert "980 more classes" in text
    changed = max(range(1_000), key=lambda index: abs(cases[index][1] - cases[index][2]))
    assert f"breed {changed} " in text


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([(40, 1, 20, 3), (40, 2, 19, 3)], "pets/4 is better"),
        ([(40, 20, 1, 3), (40, 19, 2, 3)], "pets/3 is better"),
        ([(40, 3, 6, 3), (40, 2, 4, 3)], "not decided; at the present difference"),
        ([(40, 2, 2, 3), (40, 0, 0, 3)], "not decided; the versions do not differ so far"),
    ],
)
def test_the_verdict_is_a_sentence(cases: list[tuple[int, int, int, int]], sentence: str) -> None:
    assert verdict_text(paired(*cases)).startswith(sentence)


def test_the_evidence_fits_a_log_line() -> None:
    text = evidence_text(paired((40, 1, 20, 3), (40, 2, 19, 3)))
    assert "\n" not in text
    for part in ("pets/3 64.8%", "pets/4 93.0%", "difference +28.1%", "only pets/4 correct 39", "e-value"):
        assert part in text


def test_versions_on_different_images_decide_nothing() -> None:
    columns = (np.array(column) for column in ([90, 40], [100, 50], [45, 19], [50, 20]))
    comparison = to_comparison(
        VersionComparison(THREE, FOUR, compare_groups(("cats", "dogs"), *columns), 0, ("a warning",))
    )
    text = printed(comparison)
    assert "warning: a warning" in text
    assert "Fisher's exact test" in text
    assert "e-value" not in text
    assert "nothing decides" in verdict_text(comparison)
    assert "on different images" in evidence_text(comparison)


def test_json_has_numbers_and_none_for_what_is_undefined() -> None:
    described = comparison_to_dict(paired((0, 0, 0, 0), (0, 0, 0, 0)))
    assert described["difference"] is None
    described = comparison_to_dict(paired((40, 2, 2, 3), (40, 0, 0, 3)))
    assert described["pairs"]["both_correct"] == 80
    assert described["sequential_test"]["labels_needed"] is None
    assert described["class_differences"][0]["first"]["count"] == 47
    json.dumps(described)
