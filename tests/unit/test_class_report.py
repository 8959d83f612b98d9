"""Precision, recall, F1 and support, and their averages."""

import json

import numpy as np
import pytest

from serving.statistics.class_report import ClassReport, class_report
from serving.statistics.confusion import ConfusionMatrix


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("seed", range(3))
def test_the_scores_are_those_of_scikit_learn(classes: int, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, 60))  # with 40 classes some have no labels or no predictions
    names = tuple(f"c{k}" for k in range(classes))

    ours = class_report(ConfusionMatrix.from_pairs(names, labels, predicted))

    present = sorted({*labels.tolist(), *predicted.tolist()})
    theirs = metrics.classification_report(
        labels, predicted, labels=present, target_names=[names[k] for k in present], output_dict=True, zero_division=0
    )
    assert ours is not None
    expected = {"macro average": theirs["macro avg"], "weighted average": theirs["weighted avg"], **theirs}
    for scores in [*ours.classes, *ours.averages]:
        wanted = expected[scores.name]
        assert (scores.precision, scores.recall, scores.f1, scores.support) == pytest.approx(
            (wanted["precision"], wanted["recall"], wanted["f1-score"], wanted["support"])
        )
    assert len(ours.classes) == len(present)


def test_an_empty_matrix_has_no_scores() -> None:
    assert class_report(ConfusionMatrix(("a", "b"), np.zeros((2, 2), np.int64))) is None


def test_scores_survive_being_written() -> None:
    report = class_report(ConfusionMatrix.from_pairs(("a", "b"), [0, 1, 1], [0, 0, 1]))
    assert report is not None
    assert ClassReport.from_json(json.loads(json.dumps(report.to_json()))) == report
