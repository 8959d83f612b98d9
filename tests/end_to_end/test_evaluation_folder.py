"""`python -m training evaluate --out`: a folder like a run's."""

import csv
import json
from pathlib import Path

import numpy as np

from tests.support.commands import run_here
from training.data.images import LabelledImage
from training.evaluation.evaluation import evaluate
from training.reports.evaluation_folder import prediction_rows


def test_an_evaluation_is_written_with_a_row_for_each_image(fitted: Path, drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "evaluation"
    finished = run_here("training", "evaluate", "--run", fitted, "--data", drawings, "--out", out, "--json")
    assert finished.returncode == 0, finished.stderr
    facts = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert facts["metrics"] == json.loads(finished.stdout)["metrics"]
    assert [scores["support"] for scores in facts["class_report"]["classes"]] == [8, 8]
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["label"] == row["predicted"] for row in rows) == facts["metrics"]["correct"]
    assert {row["path"] for row in rows} == {
        f"valid/{path.parent.name}/{path.name}" for path in drawings.glob("valid/*/*")
    }
    assert all(abs(float(row["p_cats"]) + float(row["p_dogs"]) - 1) < 1e-5 for row in rows)
    assert "http" not in (out / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in (out / "plots").iterdir()} == {"confusion.png", "calibration.png"}

    rejected = run_here("training", "evaluate", "--run", fitted, "--data", drawings, "--out", out / "predictions.csv")
    assert rejected.returncode == 2
    assert "--out is" in rejected.stderr


def test_of_many_classes_the_most_probable_are_listed() -> None:
    labels = np.arange(40)
    logits = np.zeros((1, 40, 40), np.float32)
    logits[0, labels, labels] = 5
    evaluation = evaluate(logits, labels, tuple(f"c{k}" for k in range(40)), {1: 1.0})
    header, first, *_ = prediction_rows(evaluation, [LabelledImage(Path(f"/d/{k}.jpg"), k) for k in labels], Path("/d"))
    assert header[3:5] == ["class_1", "p_1"]
    assert first[:4] == ["0.jpg", "c0", "c0", "c0"]
    assert len(header) == len(first) == 13
