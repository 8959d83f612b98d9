"""Chooses the images that the report shows: the five galleries of the fast.ai course."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PER_GALLERY = 8
MAX_IMAGES = 150
"""Images in the galleries of all classes, so that the page stays below 5 MB; at least two for each gallery."""
MAX_CLASSES = 20
"""Classes with galleries of their own: with more, those with the most mistakes."""


@dataclass(frozen=True)
class Gallery:
    """A titled choice of images."""

    title: str
    indices: list[int]
    """Into the evaluated images, in the order to show them."""


def choose_galleries(
    probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64], classes: tuple[str, ...], *, seed: int
) -> list[Gallery]:
    """The five galleries; the last three have one entry for each class.

    Most correct of y: highest p_y where label and prediction are y. Most incorrect of y: lowest p_y where the label is
    y and the prediction another. Most uncertain of y: smallest |p_y - 1/K| where the label is y.
    """
    correct = probabilities_NK.argmax(1) == labels_N
    rng = np.random.default_rng(seed)
    galleries = [
        Gallery("A few correct at random", _sample(rng, np.flatnonzero(correct))),
        Gallery("A few incorrect at random", _sample(rng, np.flatnonzero(~correct))),
    ]
    shown = _shown(labels_N, correct)
    most = max(min(MAX_IMAGES // (3 * len(shown)), PER_GALLERY), 2)
    p_label = probabilities_NK[np.arange(len(labels_N)), labels_N]
    for title, wanted, rank in (
        ("Most correct", correct, -p_label),
        ("Most incorrect", ~correct, p_label),
        ("Most uncertain", np.ones_like(correct), np.abs(p_label - 1 / len(classes))),
    ):
        for label in shown:
            inside = np.flatnonzero(wanted & (labels_N == label))
            ranked = inside[np.argsort(rank[inside], kind="stable")]
            galleries.append(Gallery(f"{title}: {classes[label]}", ranked[:most].tolist()))
    return galleries


def _shown(labels_N: NDArray[np.int64], correct: NDArray[np.bool_]) -> list[int]:
    """All classes, or those with the most mistakes if there are many."""
    present = np.unique(labels_N)
    if len(present) <= MAX_CLASSES:
        return [int(label) for label in present]
    mistakes = np.bincount(labels_N[~correct], minlength=int(present[-1]) + 1)[present]
    return sorted(int(label) for label in present[np.argsort(-mistakes, kind="stable")[:MAX_CLASSES]])


def _sample(rng: np.random.Generator, indices: NDArray[np.int64]) -> list[int]:
    return sorted(rng.choice(indices, min(PER_GALLERY, len(indices)), replace=False).tolist())
