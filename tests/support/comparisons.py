"""Labels of two versions for tests of comparisons: what each predicted, and the label."""

import secrets
from collections.abc import Sequence

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import Label, ShadowResult, StatisticsStore
from serving.system.times import now_ms
from serving.tokens.tokens import PredictionRecord
from tests.support.waiting import LIMIT_S

Case = tuple[str, int, bool, bool]
"""Label, how many images, whether the version that answered is correct, whether its shadow is."""


def record_pairs(
    store: StatisticsStore,
    name: str,
    answered: int,
    shadow: int | None,
    cases: Sequence[Case],
    at_ms: int | None = None,
) -> None:
    """Record labels of images that `answered` classified and, unless it is None, `shadow` too."""
    labels = []
    for label, count, correct, shadow_correct in cases:
        for _ in range(count):
            actual, predicted = _indices(store, name, answered, label, correct)
            time_ms = now_ms() if at_ms is None else at_ms
            record = PredictionRecord(secrets.token_bytes(16), name, answered, predicted, 0.9, time_ms)
            result = None
            if shadow is not None:
                _, shadow_predicted = _indices(store, name, shadow, label, shadow_correct)
                result = ShadowResult(shadow, shadow_predicted, 0.8)
            labels.append(Label(record, actual, result))
    store.record(labels).result(LIMIT_S)


def _indices(store: StatisticsStore, name: str, version: int, label: str, correct: bool) -> tuple[int, int]:
    """The label's index among the version's classes, and that of a correct or incorrect prediction."""
    classes = store.classes_of(ModelVersion(name, version))
    assert classes is not None
    actual = classes.index(label) if label in classes else -1
    return actual, actual if correct else (actual + 1) % len(classes)
