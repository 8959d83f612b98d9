"""Choose the confidence threshold of adaptive test-time augmentation (TTA).

Adaptive TTA computes one view of an image, and all views only if the confidence of the first is below a threshold. It
promises the predictions of all views for little more than the cost of one. So the threshold is chosen for agreement
with all views, not for accuracy; the run's report says whether several views raise accuracy at all.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.inference import Progress, map_in_threads
from serving.engine.onnx import Compute
from serving.image.averaging import FITTED_VIEWS, average_views
from serving.image.preprocess import Preprocess
from training.data.images import LabelledImage

MAX_EXTRA_VIEWS = 0.25
"""Most additional views per image: all views are computed here for as many of the images, those of lowest confidence.
If more needed all views, adaptive TTA would save little."""
MIN_UNSURE = 50
MAX_CHANGED_PART = 0.001
"""Largest part of all images whose prediction may differ from that of all views."""
MIN_EXTRA_VIEWS = 0.1
"""Least additional views per image: the few predictions that change here say little about where others will."""


def threshold_by_agreement(
    compute: Compute,
    images: Sequence[LabelledImage],
    preprocess: Preprocess,
    confidence_N: NDArray[np.float32],
    *,
    recommended_views: int,
    temperatures: Mapping[int, float],
    on_progress: Progress,
) -> dict[str, Any]:
    """Choose the threshold, for the manifest.

    Args:
        compute: the graph that is served.
        confidence_N: of each image's first view, by which those of lowest confidence are found.
        recommended_views: the number of views, unless it is 1: then the least that has a temperature of its own.
        temperatures: by number of views.

    Returns:
        `threshold`: confidence of the first view below which the other views are computed; `views`: the number of views
        for which it was chosen; `mean_views` and `agreement` with all views on the number of images in `photos`.
    """
    views = recommended_views if recommended_views > 1 else FITTED_VIEWS[1]
    count = min(len(images), max(MIN_UNSURE, ceil(MAX_EXTRA_VIEWS / (views - 1) * len(images))))
    assert np.isfinite(confidence_N).all(), "confidences are sorted, and NaN would come last"
    order_N = np.argsort(confidence_N, kind="stable")[:count]

    def predict_views(row: int) -> NDArray[np.float32]:
        return compute(images[row].views(preprocess, views))

    probabilities_NVK = np.stack(map_in_threads(predict_views, order_N.tolist(), on_progress))
    first_N = probabilities_NVK[:, 0].max(1).astype(np.float64)
    changed_N = probabilities_NVK[:, 0].argmax(1) != average_views(probabilities_NVK, temperatures).argmax(1)
    threshold = lowest_threshold(
        first_N,
        changed_N,
        max_changed=int(MAX_CHANGED_PART * len(images)),
        min_below=ceil(MIN_EXTRA_VIEWS / (views - 1) * len(images)),
    )
    below_N = first_N < threshold
    return {
        "threshold": threshold,
        "views": views,
        "photos": len(images),
        "mean_views": 1 + float(below_N.sum()) * (views - 1) / len(images),
        "agreement": 1 - float((changed_N & ~below_N).sum()) / len(images),
    }


def lowest_threshold(
    confidence_N: NDArray[np.float64], changed_N: NDArray[np.bool_], *, max_changed: int, min_below: int
) -> float:
    """The lowest threshold with at least `min_below` images, and all but `max_changed` changed ones, below it.

    Args:
        confidence_N: highest probability of the first view, 0 to 1.
        changed_N: whether the prediction of all views differs from that of the first.
    """
    ranked = np.sort(confidence_N)
    last = ranked[min(min_below, len(ranked)) - 1]
    changed = np.sort(confidence_N[changed_N])
    if len(changed) > max_changed:
        last = max(last, changed[len(changed) - 1 - max_changed])
    above = ranked[ranked > last]
    # midway to the next image; if there is none, just above the last
    return min(1.0, float((last + above[0]) / 2 if len(above) else np.nextafter(np.float32(last), np.float32(2))))
