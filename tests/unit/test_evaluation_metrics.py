"""Accuracy, likelihood, calibration and temperature, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from training.evaluation.evaluation import evaluate
from training.evaluation.metrics import measure
from training.evaluation.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, softmax


def draw(n: int, k: int, *, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are correct as often as softmax(logits / temperature) says."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(n, k))).astype(np.float32)
    cumulative = softmax(logits, temperature).cumsum(1)
    labels = (rng.random((n, 1)) > cumulative).sum(1).clip(0, k - 1)
    return logits, labels


def test_metrics_agree_with_scikit_learn() -> None:
    logits, labels = draw(500, 2, temperature=1.0)
    probabilities = softmax(logits)
    exact = probabilities.astype(np.float64)
    metrics = measure(probabilities, labels)
    assert metrics.n == 500
    assert metrics.correct == (probabilities.argmax(1) == labels).sum()
    assert metrics.nll.value == pytest.approx(log_loss(labels, exact / exact.sum(1, keepdims=True)), rel=1e-5)
    assert metrics.brier.value == pytest.approx(2 * brier_score_loss(labels, probabilities[:, 1]), rel=1e-5)


def test_intervals_contain_the_value_and_narrow_with_more_images() -> None:
    widths = []
    for n in (100, 10_000, 30_000):
        logits, labels = draw(n, 3, temperature=1.0)
        metrics = measure(softmax(logits), labels)
        for interval in (metrics.accuracy, metrics.nll, metrics.brier, metrics.ece):
            assert interval.lower <= interval.value <= interval.upper
        widths.append(metrics.nll.upper - metrics.nll.lower)
    assert widths[0] > 5 * widths[1] > 5 * widths[2]


def test_ece_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (100, 1))
    labels = np.array([0] * 60 + [1] * 40)
    assert measure(probabilities, labels).ece.value == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, labels = draw(20_000, 4, temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_of_a_network_without_mistakes_is_bounded() -> None:
    logits = np.array([[3, 0], [0, 3]], np.float32)
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(LOWEST)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(HIGHEST)


def test_calibration_changes_no_prediction_and_lowers_the_loss_on_images_it_has_not_seen() -> None:
    logits, labels = draw(2000, 3, temperature=3.0)
    before, after = softmax(logits), cross_fitted(logits[None], labels)
    assert (before.argmax(1) == after.argmax(1)).all()
    assert measure(after, labels).nll.value < measure(before, labels).nll.value
    assert measure(after, labels).ece.value < measure(before, labels).ece.value


@pytest.mark.parametrize(
    ("correct", "margin", "warnings"),
    [
        (52, 3.0, ["accuracy 52.00%", "the temperature is 20, at the bound"]),
        (100, 3.0, ["the temperature is 0.25, at the bound"]),
        (90, 3.0, []),
    ],
)
def test_a_network_at_chance_level_and_a_temperature_at_its_bound_are_warned_of(
    correct: int, margin: float, warnings: list[str]
) -> None:
    labels = np.arange(100) % 2
    predicted = np.where(np.arange(100) < correct, labels, 1 - labels)
    logits = (margin * np.eye(2)[predicted]).astype(np.float32)
    found = evaluate(logits[None], labels, ("cats", "dogs")).warnings()
    assert [text[: len(start)] for text, start in zip(found, warnings, strict=True)] == warnings


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1e4, 0, -1e4]], np.float32)).tolist() == [[1.0, 0.0, 0.0]]


def test_an_empty_set_of_images_is_rejected() -> None:
    with pytest.raises(ValueError, match="no images"):
        measure(np.empty((0, 2), np.float32), np.empty(0, np.int64))
