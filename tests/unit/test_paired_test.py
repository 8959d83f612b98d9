"""The paired test of two networks, and test-time augmentation: its temperatures, what it changes, adaptive TTA."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from serving.statistics.confusion import ConfusionMatrix
from training.evaluation.evaluation import confusion_facts, evaluate
from training.evaluation.metrics import compare
from training.evaluation.temperature import fit_temperature, softmax
from training.evaluation.test_time import Adaptive, describe_test_time, threshold_by_accuracy


@given(fixed=st.integers(0, 60), broken=st.integers(0, 60), same=st.integers(0, 20))
def test_mcnemar_is_the_exact_binomial_test_of_changed_predictions(fixed: int, broken: int, same: int) -> None:
    before = np.array([False] * fixed + [True] * broken + [True] * same, bool)
    after = np.array([True] * fixed + [False] * broken + [True] * same, bool)
    paired = compare(before, after)
    assert (paired.fixed, paired.broken) == (fixed, broken)
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert paired.p_value == pytest.approx(expected)


def answers(seed: int, n: int = 120, views: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(views, n, 3)) + 1.5 * np.eye(3)[labels]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_is_the_lowest_from_which_accuracy_is_at_least_that_of_all_views(seed: int) -> None:
    logits, labels = answers(seed)
    one, every = softmax(logits[0], 1.3), softmax(logits.mean(0), 0.9)
    chosen = threshold_by_accuracy(4, one, every, labels)
    confidence = one.max(1)

    def correct(threshold: float) -> int:
        p = np.where((confidence < threshold)[:, None], every, one)
        return int((p.argmax(1) == labels).sum())

    full = correct(1.1)
    assert correct(chosen.threshold) == chosen.correct >= full
    above = [t for t in np.linspace(0, 1, 400) if t >= chosen.threshold]
    assert all(correct(t) >= full for t in above)
    below = confidence[confidence < chosen.threshold].max(initial=0.0)
    assert chosen.threshold == 0 or correct(below) < full or correct(below + 1e-9) < full
    assert chosen.mean_views == pytest.approx(1 + 3 * (confidence < chosen.threshold).mean())


def test_given_temperatures_are_used_and_missing_ones_are_fitted() -> None:
    logits, labels = answers(0, n=400)
    classes = ("a", "b", "c")
    given_one = evaluate(logits, labels, classes, temperatures={1: 2.0, 3: 1.0})
    assert given_one.temperatures == {1: 2.0, 3: 1.0}
    np.testing.assert_allclose(given_one.probabilities_NK, softmax(logits[0], 2.0), rtol=1e-6)
    assert [each.views for each in given_one.test_time] == [3, 4]
    fitted = evaluate(logits, labels, classes)
    assert fitted.metrics.nll.value <= given_one.metrics.nll.value + 0.01
    assert sorted(fitted.temperatures) == [1, 3, 4]
    assert fitted.temperatures[3] == pytest.approx(fit_temperature(logits[:3].mean(0), labels))
    assert evaluate(logits[:1], labels, classes).test_time == ()


def test_the_number_of_views_that_helps_is_recommended() -> None:
    logits, labels = answers(0, n=400)
    helped = evaluate(logits, labels, ("a", "b", "c"))  # independent noise in each view
    assert helped.test_time[-1].metrics.correct > helped.metrics.correct
    assert helped.test_time[0].nll_change.upper < 0
    assert helped.recommended_views == 3
    assert "3 views change the negative log likelihood by -0." in describe_test_time(helped.test_time)
    same = evaluate(np.repeat(logits[:1], 5, 0), labels, ("a", "b", "c"))
    assert same.recommended_views == 1
    assert "does not help" in describe_test_time(same.test_time)


def test_a_matrix_of_many_classes_is_written_without_its_zeros() -> None:
    few = ConfusionMatrix.from_pairs(("a", "b"), [0, 1, 1], [0, 0, 1])
    assert confusion_facts(few) == {"confusion_matrix": [[1, 0], [1, 1]]}
    many = ConfusionMatrix.from_pairs(tuple(map(str, range(900))), [7, 7, 899], [7, 7, 3])
    assert confusion_facts(many) == {"confusion_matrix": None, "confusion_entries": [[7, 7, 2], [899, 3, 1]]}


def test_a_threshold_of_zero_is_described_as_one_view_for_all() -> None:
    assert Adaptive(0, 1, 12).describe(16) == "12/16 correct, never more than one view"
    some = "12/16 correct, 1.25 views per image, other views below a confidence of 0.600"
    assert Adaptive(0.6, 1.25, 12).describe(16) == some
