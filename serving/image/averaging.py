"""The probabilities of an image from those of its views: their renormalised geometric mean.

The graph computes p_v = softmax(z_v / T_1) for each view v, where z_v are its logits and T_1 is the temperature that
was fitted for one view. The mean over V views is the softmax of the mean logits at the temperature T_V that was fitted
for V views:

    p = softmax(1/V sum_v z_v / T_V) = softmax(T_1 / T_V * 1/V sum_v log p_v)

since log p_v and z_v / T_1 differ by a constant of each view, which the softmax removes. So T_V needs no graph of its
own. A mean of probabilities gives a view without the animal, which is uncertain, too much weight against one that shows
it; docs/test-time-augmentation.md compares both.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FITTED_VIEWS = (1, 3, 5)
"""Numbers of views for which a temperature is fitted."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities are at least this before their logarithm is taken: 1.2e-38. Smaller ones were rounded to 0."""


def temperature_of(views: int, temperatures: Mapping[int, float]) -> float:
    """The temperature T_V: between numbers of views that were fitted, by linear interpolation; beyond them, the last.

    Args:
        temperatures: by number of views.
    """
    fitted = sorted(temperatures)
    return float(np.interp(views, fitted, [temperatures[count] for count in fitted]))


def average_views(probabilities_VK: NDArray[np.float32], temperatures: Mapping[int, float]) -> NDArray[np.float32]:
    """The probabilities of an image, float32 `[K]`, or of N images, `[N, K]`.

    Args:
        probabilities_VK: of its views at the temperature of one view, float32 `[V, K]`, or `[N, V, K]`.
        temperatures: fitted, by number of views; with that of one view.
    """
    views = probabilities_VK.shape[-2]
    if views == 1:
        return probabilities_VK[..., 0, :]
    logarithms_VK = np.log(np.maximum(probabilities_VK, SMALLEST, dtype=np.float64))
    ratio = temperatures[1] / temperature_of(views, temperatures)
    scaled_K = ratio * logarithms_VK.mean(-2)
    powers_K = np.exp(scaled_K - scaled_K.max(-1, keepdims=True))
    averaged_K: NDArray[np.float32] = (powers_K / powers_K.sum(-1, keepdims=True)).astype(np.float32)
    return averaged_K
