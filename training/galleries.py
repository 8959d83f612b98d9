"""Probabilities and truth in; which photos to look at out: the recipe's five galleries."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PER_GALLERY = 8
MAX_CLASSES = 20
"""Classes shown in the galleries that have an entry a class: with more, those with the most mistakes."""


@dataclass(frozen=True)
class Gallery:
    """A titled choice of photos."""

    title: str
    indices: list[int]
    """Into the evaluated photos, in the order to show them."""


def choose_galleries(
    probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64], classes: tuple[str, ...], *, seed: int
) -> list[Gallery]:
    """The five galleries of the recipe; the last three have one entry a class.

    Most correct of y: highest p_y where truth and prediction are y. Most incorrect of y: lowest p_y where the truth
    is y and the prediction another. Most uncertain of y: smallest |p_y - 1/K| where the truth is y.
    """
    predicted = probabilities_NK.argmax(1)
    right = predicted == labels_N
    rng = np.random.default_rng(seed)
    galleries = [
        Gallery("A few correct at random", _sample(rng, np.flatnonzero(right))),
        Gallery("A few incorrect at random", _sample(rng, np.flatnonzero(~right))),
    ]
    shown = _shown(labels_N, right)
    p_true = probabilities_NK[np.arange(len(labels_N)), labels_N]
    for title, wanted, rank in (
        ("Most correct", right, -p_true),
        ("Most incorrect", ~right, p_true),
        ("Most uncertain", np.ones_like(right), np.abs(p_true - 1 / len(classes))),
    ):
        for label in shown:
            inside = np.flatnonzero(wanted & (labels_N == label))
            ranked = inside[np.argsort(rank[inside], kind="stable")]
            galleries.append(Gallery(f"{title}: {classes[label]}", ranked[:PER_GALLERY].tolist()))
    return galleries


def _shown(labels_N: NDArray[np.int64], right: NDArray[np.bool_]) -> list[int]:
    """All classes or, of very many, those with the most mistakes."""
    present = np.unique(labels_N)
    if len(present) <= MAX_CLASSES:
        return [int(label) for label in present]
    mistakes = np.bincount(labels_N[~right], minlength=int(present[-1]) + 1)[present]
    return sorted(int(label) for label in present[np.argsort(-mistakes, kind="stable")[:MAX_CLASSES]])


def _sample(rng: np.random.Generator, indices: NDArray[np.int64]) -> list[int]:
    return sorted(rng.choice(indices, min(PER_GALLERY, len(indices)), replace=False).tolist())
