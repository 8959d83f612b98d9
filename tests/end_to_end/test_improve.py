"""The loop from labels to a better version, as docs/improving.md describes it, on a few real images."""

import csv
import json
from pathlib import Path

import pytest

from tests.support.commands import run_cold
from training.runs.run import open_run

pytestmark = [pytest.mark.photos, pytest.mark.slow]


@pytest.mark.timeout(1800)
def test_labels_of_a_served_model_make_a_better_version(photos: Path, tmp_path: Path) -> None:
    """Version 1 has seen 2 images of each class; version 2 is promoted if the labels decide."""
    out = tmp_path / "loop"
    sizes = ("--first", 2, "--later", 15, "--valid", 30, "--cache", tmp_path / "cache")
    finished = run_cold("examples.improve", "--photos", photos, "--out", out, *sizes)
    assert finished.returncode == 0, finished.stderr
    facts = json.loads(finished.stdout.splitlines()[-1])

    with (out / "labels.csv").open(newline="") as file:
        labels = {row["reference"]: row for row in csv.DictReader(file)}
    with (out / "predictions.csv").open(newline="") as file:
        predictions = {row["reference"]: row for row in csv.DictReader(file)}
    assert labels.keys() == predictions.keys() == {path.name for path in (out / "camera").iterdir()}
    assert all(labels[name]["id"] == predictions[name]["id"] for name in labels)
    assert facts["labelled"] == facts["added"] == len(labels) == 30
    assert facts["mistakes"] == sum(row["predicted"] != row["label"] for row in labels.values())

    first, second = open_run(out / "first"), open_run(out / "second")
    assert [len(each.training()) for each in (first, second)] == facts["trained_on"] == [4, 34]
    assert [image.path.name for image in first.validation()[0]] == [image.path.name for image in second.validation()[0]]
    assert facts["validation_accuracy"][1] > facts["validation_accuracy"][0]

    pairs = facts["comparison"]["pairs"]
    count = sum(pairs.values())
    assert 30 <= count <= 60, "each label counts for both versions at most once"
    if count == 60:  # the shadow version has dropped none
        correct = [pairs["both_correct"] + pairs[f"only_{which}_correct"] for which in ("first", "second")]
        assert [each / 60 for each in correct] == pytest.approx(facts["validation_accuracy"])
    decided = facts["comparison"]["sequential_test"]["e_value"] >= 20
    assert facts["promoted"] is decided
    assert facts["answers"] == f"models/pets/versions/{2 if decided else 1}"
