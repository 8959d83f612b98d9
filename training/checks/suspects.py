"""Finds labels that are probably incorrect, by confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70).

Each image is scored by a head that was fitted on other images. The threshold of a class is the mean probability of the
class over the images that have its label. An image counts as another class if that class's probability reaches its
threshold and is the highest of those that do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.checks.logistic import fit_logistic

FOLDS = 5
CLEARLY = 2.0
"""An image is a suspect, too, if another class is this many times as probable as its label."""


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably incorrect."""

    index: int
    """Index of the image."""
    suggested: int
    """The class index that the image probably belongs to."""
    p_label: float
    """Out-of-fold probability of the given label."""
    p_suggested: float
    confident: bool
    """Whether confident learning counts it; the others are listed because another class is twice as probable."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of heads for images that they were not fitted on."""

    suspects: list[Suspect]
    """The largest difference between both probabilities first."""
    predicted_N: NDArray[np.int64]
    """The class of the highest probability; -1 where the image could not be judged."""

    def accuracy(self, labels_N: NDArray[np.int64]) -> tuple[int, int]:
        """Images classified correctly, and images judged."""
        judged = self.predicted_N >= 0
        return int((self.predicted_N == labels_N)[judged].sum()), int(judged.sum())


def find_suspects(
    rows_ND: NDArray[np.float16],
    labels_N: NDArray[np.int64],
    classes: int,
    groups: Sequence[Sequence[int]] = (),
    *,
    seed: int = 0,
) -> OutOfFold:
    """Score every image out of fold and rank the suspects.

    An image whose class has no other image outside its fold cannot be judged.

    Args:
        rows_ND: float16, as `project` gives them.
        labels_N: int64 class indices.
        classes: K.
        groups: indices of images that are copies of one another: they are always in one fold.
        seed: of the folds.
    """
    fold_N = folds(labels_N, groups, seed)
    judged_N = np.zeros(len(labels_N), np.bool_)
    heads = []
    for fold in range(FOLDS):
        inside = fold_N == fold
        others = labels_N[~inside]
        heads.append(fit_logistic(rows_ND[~inside], others, classes) if len(np.unique(others)) > 1 else None)
        if heads[-1] is not None:
            judged_N |= inside & np.isin(labels_N, others)
    p_label_N = np.zeros(len(labels_N), np.float32)
    predicted_N = np.full(len(labels_N), -1, np.int64)
    suggested_N = np.full(len(labels_N), -1, np.int64)
    p_suggested_N, p_predicted_N = np.zeros((2, len(labels_N)), np.float32)

    def scored() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows and their probabilities, block by block: twice as much work as keeping N x K numbers, and no memory."""
        for fold, head in enumerate(heads):
            if head is None:
                continue
            rows = np.flatnonzero((fold_N == fold) & judged_N)
            at = 0
            for block_nK in head.probabilities(rows_ND[rows]):
                yield rows[at : at + len(block_nK)], block_nK
                at += len(block_nK)

    for rows, block_nK in scored():
        p_label_N[rows] = block_nK[np.arange(len(rows)), labels_N[rows]]
        predicted_N[rows], p_predicted_N[rows] = block_nK.argmax(1), block_nK.max(1)
    thresholds_K = class_thresholds(p_label_N[judged_N], labels_N[judged_N], classes)
    for rows, block_nK in scored():
        suggested_N[rows], p_suggested_N[rows] = confident_class(block_nK, thresholds_K)
    confident_N = (suggested_N >= 0) & (suggested_N != labels_N)
    suggested_N = np.where(confident_N, suggested_N, predicted_N)
    p_suggested_N = np.where(confident_N, p_suggested_N, p_predicted_N)
    found = np.flatnonzero(confident_N | (p_suggested_N >= CLEARLY * p_label_N) & (predicted_N != labels_N) & judged_N)
    ranked = found[np.argsort(p_label_N[found] - p_suggested_N[found], kind="stable")]
    suspects = [
        Suspect(int(at), int(suggested_N[at]), float(p_label_N[at]), float(p_suggested_N[at]), bool(confident_N[at]))
        for at in ranked
    ]
    return OutOfFold(suspects, predicted_N)


def class_thresholds(p_label_N: NDArray[np.float32], labels_N: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """The mean probability of each class over the images with its label, float64 `[K]`; above 1 where there is none."""
    counts = np.bincount(labels_N, minlength=classes)
    sums = np.bincount(labels_N, p_label_N.astype(np.float64), minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 2.0)


def confident_class(
    probabilities_NK: NDArray[np.float32], thresholds_K: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The class that each image confidently belongs to, and its probability; -1 and 0 where there is none."""
    reached_NK = np.where(probabilities_NK >= thresholds_K - 1e-6, probabilities_NK, 0.0)
    best = reached_NK.argmax(1)
    highest = reached_NK[np.arange(len(best)), best].astype(np.float32)
    return np.where(highest > 0, best, -1), highest


def folds(labels_N: NDArray[np.int64], groups: Sequence[Sequence[int]], seed: int) -> NDArray[np.int64]:
    """The fold of each image, 0 to 4: the images of each class are dealt out evenly, copies into one fold."""
    leader_N = np.arange(len(labels_N))
    for group in groups:
        leader_N[list(group)] = group[0]
    leaders = np.flatnonzero(leader_N == np.arange(len(labels_N)))
    shuffled = np.random.default_rng(seed).permutation(leaders)
    shuffled = shuffled[np.argsort(labels_N[shuffled], kind="stable")]
    fold_N = np.empty(len(labels_N), np.int64)
    fold_N[shuffled] = np.arange(len(shuffled)) % FOLDS
    return fold_N[leader_N]
