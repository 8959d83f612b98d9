"""The probabilities that a run records of each validation image."""

import json
from pathlib import Path

import numpy as np

from export.checks.checks import compare
from tests.support.runs import run_of
from training.data.images import LabelledImage
from training.evaluation.temperature import softmax
from training.runs.run import validation_lines


def recorded(folder: Path, classes: int) -> tuple[np.ndarray, np.ndarray, int]:
    probabilities_NK = softmax(np.random.default_rng(0).normal(size=(6, classes)).astype(np.float32))
    images = [LabelledImage(folder / f"{row}.jpg", row % 2, bytes(32)) for row in range(6)]
    text = "".join(validation_lines(images, probabilities_NK, folder))
    (folder / "validation.jsonl").write_text(text)
    run = run_of(folder, {"path": str(folder)}, classes=[str(k) for k in range(classes)])
    return probabilities_NK, run.validation()[1], max(len(line) for line in text.splitlines())


def test_all_probabilities_of_a_few_classes_are_recorded(tmp_path: Path) -> None:
    probabilities_NK, read_NK, _ = recorded(tmp_path, 100)
    assert np.array_equal(probabilities_NK, read_NK)


def test_the_hundred_highest_probabilities_of_ten_thousand_classes_are_recorded(tmp_path: Path) -> None:
    probabilities_NK, read_NK, length = recorded(tmp_path, 10_000)
    assert length < 5_000
    known = ~np.isnan(read_NK)
    assert known.sum(1).tolist() == [100] * 6
    assert np.array_equal(read_NK[known], probabilities_NK[known])
    assert np.array_equal(np.nanargmax(read_NK, 1), probabilities_NK.argmax(1))
    assert "highest" in json.loads((tmp_path / "validation.jsonl").read_text().splitlines()[0])


def test_unrecorded_probabilities_are_not_compared_and_nan_is_found(tmp_path: Path) -> None:
    probabilities_NK, read_NK, _ = recorded(tmp_path, 500)
    labels_N = probabilities_NK.argmax(1)
    same = compare(probabilities_NK, read_NK, labels_N)
    assert (same.max_abs_diff, same.agreement, same.correct) == (0, 1, 6)
    broken_NK = probabilities_NK.copy()
    broken_NK[3, int(probabilities_NK[3].argmin())] = np.nan
    assert compare(broken_NK, read_NK, labels_N).max_abs_diff == np.inf
