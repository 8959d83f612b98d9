"""Label suspects: out-of-fold probabilities and confident learning."""

import numpy as np
import pytest

from training.checks.logistic import fit_logistic
from training.checks.suspects import class_thresholds, confident_class, find_suspects, folds


def blobs(per_class: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around well separated centres: float16 `[N, 16]`, and labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 16)) * 3
    labels = np.repeat(np.arange(classes), per_class)
    return (centres[labels] + rng.normal(size=(len(labels), 16))).astype(np.float16), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_flipped_labels_are_the_first_suspects(classes: int) -> None:
    rows, true = blobs(200, classes)
    flipped = np.random.default_rng(1).choice(len(true), 10, replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + 1) % classes

    suspects = find_suspects(rows, labels, classes).suspects

    assert set(flipped) <= {each.index for each in suspects[:12]}
    assert all(each.suggested == true[each.index] for each in suspects if each.index in set(flipped))
    assert all(each.p_label < each.p_suggested for each in suspects)


def test_a_copy_with_another_label_does_not_vouch_for_the_image() -> None:
    rows, labels = blobs(100, 2)
    copies = list(range(5))  # five copies of one image, all with the incorrect label
    rows[copies], labels[copies] = rows[0], 1

    fold = folds(labels, [copies], 0)

    assert len(set(fold[copies])) == 1
    assert {each.index for each in find_suspects(rows, labels, 2, [copies]).suspects} >= set(copies)


def test_each_class_is_dealt_out_evenly_over_the_folds() -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 7])
    fold = folds(labels, [], 0)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_an_image_whose_class_has_no_other_image_is_not_judged() -> None:
    rows, labels = blobs(30, 2)
    labels = np.append(labels, 2)
    result = find_suspects(np.concatenate([rows, rows[:1]]), labels, 3)
    assert result.predicted_N[-1] == -1
    assert len(labels) - 1 not in {each.index for each in result.suspects}
    assert result.accuracy(labels)[1] == 60


def test_the_suspects_of_confident_learning_are_those_of_cleanlab() -> None:
    filters = pytest.importorskip("cleanlab.filter", reason="needs cleanlab")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    logits = rng.normal(size=(600, 4)) + 3 * np.eye(4)[np.where(rng.random(600) < 0.1, rng.integers(0, 4, 600), labels)]
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    p_label = probabilities[np.arange(600), labels]
    ours, _ = confident_class(probabilities, class_thresholds(p_label, labels, 4))

    theirs = filters.find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert np.array_equal((ours >= 0) & (ours != labels), theirs)


def test_the_logistic_head_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    rows, labels = blobs(60, 3)
    ours = np.concatenate(list(fit_logistic(rows, labels, 3).probabilities(rows)))
    model = linear_model.LogisticRegression(C=1 / 100, max_iter=1000, tol=1e-8).fit(rows.astype(np.float64), labels)
    np.testing.assert_allclose(ours, model.predict_proba(rows.astype(np.float64)), atol=2e-3)
