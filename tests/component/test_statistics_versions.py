"""Labels are accepted only for versions whose classes are registered."""

from pathlib import Path

import pytest

from serving.bundle.model_version import ModelVersion
from serving.statistics.store import Label, StatisticsStore
from tests.support.statistics import CAT, CLASSES, DOG, PETS, label, matrix
from tests.support.waiting import LIMIT_S


def test_classes_are_known_after_a_restart(store: StatisticsStore, path: Path) -> None:
    store.record([label(DOG)]).result(LIMIT_S)
    store.close()

    with StatisticsStore(path) as later:
        assert later.classes_of(PETS) == CLASSES
        assert later.classes_of(ModelVersion("pets", 2)) is None
        assert later.record([label(CAT)]).result(LIMIT_S) == [None]
        assert matrix(later) == [[1, 0], [1, 0]]


def test_a_version_keeps_the_classes_that_it_was_registered_with(store: StatisticsStore) -> None:
    store.register_version(PETS, list(CLASSES))

    with pytest.raises(ValueError, match=r"pets/1 .*\['cat', 'dog'\].*\['dog', 'cat'\].*new version"):
        store.register_version(PETS, ("dog", "cat"))
    assert store.classes_of(PETS) == CLASSES
    assert store.record([label(DOG)]).result(LIMIT_S) == [None]


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_version_numbers_out_of_range_are_rejected(store: StatisticsStore, version: int) -> None:
    with pytest.raises(ValueError, match=r"1 to 2\^63 - 1"):
        store.register_version(ModelVersion("pets", version), CLASSES)


def test_the_error_of_thousands_of_classes_has_a_readable_length(store: StatisticsStore) -> None:
    many = [f"class {index}" for index in range(5_000)]
    store.register_version(ModelVersion("many", 1), many)

    with pytest.raises(ValueError, match="5000 in all") as caught:
        store.register_version(ModelVersion("many", 1), many[::-1])
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (label(2), "actual is 2; pets/1 has 2 classes: 0 to 1"),
        (label(-1), "actual is -1"),
        (label(CAT, predicted=2), "predicted is 2"),
        (label(CAT, version=2), "pets/2 is not registered"),
        (label(CAT, model="cars"), "cars/1 is not registered"),
    ],
)
def test_an_invalid_label_rejects_its_whole_batch(store: StatisticsStore, bad: Label, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.record([label(CAT), bad])
    assert store.read() == []


def test_invalid_predictions_are_rejected(store: StatisticsStore) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        store.count_predictions(PETS, 2)
    with pytest.raises(ValueError, match="not registered"):
        store.count_predictions(ModelVersion("pets", 2), CAT)
