"""Temperature scaling: calibrates probabilities (Guo et al. 2017, section 4.2).

Dividing logits by one number changes no prediction. The number is fitted on the validation images; reported metrics
are cross-fitted, so that no image is scored with a temperature that was fitted to it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serving.image.averaging import FITTED_VIEWS

LOWEST, HIGHEST = 0.25, 20.0
"""Bounds of the temperature: for a network without mistakes the optimum would be 0."""
FOLDS = 5
ENOUGH_LOGITS, ENOUGH_ROWS = 20_000_000, 1_000
"""More are not needed to fit one number."""
BLOCK_LOGITS = 1 << 20


def softmax(logits_NK: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]` of logits divided by a temperature."""
    probabilities = np.empty(logits_NK.shape, np.float32)
    for rows in _blocks(logits_NK):
        scaled = logits_NK[rows].astype(np.float64) / temperature
        np.exp(scaled - scaled.max(1, keepdims=True), out=scaled)
        probabilities[rows] = scaled / scaled.sum(1, keepdims=True)
    return probabilities


def fit_temperature(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """The temperature between 0.25 and 20 with the lowest negative log likelihood.

    The likelihood is convex in 1/T. Its derivative, the mean over rows of (expected logit - label's logit), is
    brought to zero by Newton's method, kept inside a bracket by bisection; the second derivative is the logits'
    variance. If there are more than 20 million logits (thousands of classes), evenly spaced rows are used.
    """
    stride = max(1, min(logits_NK.size // ENOUGH_LOGITS, len(logits_NK) // ENOUGH_ROWS))
    logits_NK, labels_N = logits_NK[::stride], labels_N[::stride]
    low, high = 1 / HIGHEST, 1 / LOWEST
    inverse = 1.0
    for _ in range(60):
        slope, curvature = _derivatives(logits_NK, labels_N, inverse)
        if slope < 0:
            low = inverse
        else:
            high = inverse
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-10:
            break
        inverse = following
    return 1 / following


def _derivatives(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log likelihood by 1/T."""
    slope = curvature = 0.0
    for rows in _blocks(logits_NK):
        z = logits_NK[rows].astype(np.float64)
        z -= z.max(1, keepdims=True)
        weights = np.exp(inverse * z)
        total = weights.sum(1)
        mean = np.einsum("nk,nk->n", weights, z) / total
        square = np.einsum("nk,nk,nk->n", weights, z, z) / total
        slope += float((mean - z[np.arange(len(z)), labels_N[rows]]).sum())
        curvature += float((square - mean**2).sum())
    return slope / len(labels_N), curvature / len(labels_N)


def _blocks(logits_NK: NDArray[np.float32]) -> Iterator[slice]:
    """Blocks of rows, so that float64 arrays take megabytes with any number of classes."""
    rows = max(BLOCK_LOGITS // logits_NK.shape[1], 1)
    return (slice(start, start + rows) for start in range(0, len(logits_NK), rows))


def cross_fitted(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float32]:
    """Probabilities `[N, K]` of the average over views; each fifth of the rows at the temperature of the others.

    As for the deployed network, the temperature is the one for this number of views.
    """
    mean_NK = mean_logits(logits_VNK)
    n = len(labels_N)
    if n < 2 * FOLDS:
        return softmax(mean_NK)
    fold_of = np.random.default_rng(0).permutation(n) % FOLDS
    probabilities = np.empty(mean_NK.shape, np.float32)
    for fold in range(FOLDS):
        inside = fold_of == fold
        probabilities[inside] = softmax(mean_NK[inside], fit_temperature(mean_NK[~inside], labels_N[~inside]))
    return probabilities


def mean_logits(logits_VNK: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over views, float32 `[N, K]`.

    Its softmax at a temperature is the renormalised geometric mean that serving computes from probabilities
    (serving/image/averaging.py).
    """
    return np.asarray(logits_VNK.mean(0), np.float32)


def fit_temperatures(logits_VNK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> dict[int, float]:
    """The temperature for each number of views up to V of `FITTED_VIEWS`, and for V, fitted on the mean logits."""
    most = len(logits_VNK)
    counts = sorted({*(count for count in FITTED_VIEWS if count <= most), most})
    return {count: fit_temperature(mean_logits(logits_VNK[:count]), labels_N) for count in counts}
