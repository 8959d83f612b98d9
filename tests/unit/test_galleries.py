"""The five galleries of the report."""

import numpy as np

from training.reports.galleries import choose_galleries

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95], [0.7, 0.3], [0.51, 0.49]], np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 1])
CLASSES = ("cats", "dogs")


def test_each_gallery_shows_the_images_of_its_title() -> None:
    galleries = {g.title: g.indices for g in choose_galleries(PROBABILITIES, LABELS, CLASSES, seed=0)}
    assert galleries == {
        "A few correct at random": [0, 1, 3],
        "A few incorrect at random": [2, 4, 5],
        "Most correct: cats": [0, 1],
        "Most correct: dogs": [3],
        "Most incorrect: cats": [2],
        "Most incorrect: dogs": [4, 5],
        "Most uncertain: cats": [1, 2, 0],
        "Most uncertain: dogs": [5, 4, 3],
    }


def test_random_galleries_are_the_same_for_a_seed_and_hold_eight_at_most() -> None:
    probabilities = np.tile(PROBABILITIES, (50, 1))
    labels = np.tile(LABELS, 50)
    first, again, other = (choose_galleries(probabilities, labels, CLASSES, seed=seed)[0] for seed in (1, 1, 2))
    assert len(first.indices) == 8
    assert first == again != other


def test_a_network_without_mistakes_has_empty_galleries_of_mistakes() -> None:
    galleries = choose_galleries(PROBABILITIES[:1], LABELS[:1], CLASSES, seed=0)
    assert [g.indices for g in galleries if "ncorrect" in g.title] == [[], []]


def test_of_thousands_of_classes_those_with_the_most_mistakes_are_shown() -> None:
    labels = np.repeat(np.arange(1000), 2)
    probabilities = np.eye(1000, dtype=np.float32)[labels]
    wrong = np.arange(0, 2000, 100)  # twenty classes with a mistake each
    probabilities[wrong] = probabilities[(wrong + 7) % 2000]
    galleries = choose_galleries(probabilities, labels, tuple(map(str, range(1000))), seed=0)
    shown = [gallery.title for gallery in galleries if gallery.title.startswith("Most incorrect")]
    assert shown == [f"Most incorrect: {label}" for label in range(0, 1000, 50)]
