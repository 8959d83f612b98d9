"""Logits and truth in; the temperature that makes probabilities honest out (Guo et al. 2017, section 4.2).

Dividing logits by one number changes no prediction. The number is found on the validation photos; what is reported
of it is cross-fitted, so that no photo is scored with a temperature that it helped to find.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.25, 20.0
"""Without a bound, a network that makes no mistake would be told to be infinitely sure."""
FOLDS = 5


def softmax(logits_NK: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]` of logits divided by a temperature."""
    scaled = logits_NK.astype(np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: NDArray[np.float32] = (scaled / scaled.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def fit_temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """The temperature between 0.25 and 20 with the lowest negative log likelihood.

    The likelihood is convex in 1/T: its derivative, mean over rows of (expected logit - true logit), is bisected.
    """
    z = logits_NK.astype(np.float64)
    z_true = z[np.arange(len(z)), labels_N]
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(middle * (z - z.max(1, keepdims=True)))
        expected = (weights * z).sum(1) / weights.sum(1)
        if (expected - z_true).mean() < 0:
            low = middle
        else:
            high = middle
    return 2 / (low + high)


def cross_fitted(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float32]:
    """Probabilities `[N, K]`, the mean over views, where each fifth of the rows has the temperature of the others.

    The temperature is that of the first view: it is the one inside the deployed graph.
    """
    n = len(labels_N)
    if n < 2 * FOLDS:
        return mean_probabilities(logits_VNK, 1.0)
    fold_of = np.random.default_rng(0).permutation(n) % FOLDS
    probabilities = np.empty(logits_VNK.shape[1:], np.float32)
    for fold in range(FOLDS):
        inside = fold_of == fold
        temperature = fit_temperature(logits_VNK[0, ~inside], labels_N[~inside])
        probabilities[inside] = mean_probabilities(logits_VNK[:, inside], temperature)
    return probabilities


def mean_probabilities(logits_VNK: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """float32 `[N, K]`: each view's probabilities, averaged, as serving does."""
    mean: NDArray[np.float32] = np.mean([softmax(logits_NK, temperature) for logits_NK in logits_VNK], 0)
    return mean
