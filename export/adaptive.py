"""A graph and the validation photos in; how sure a first view must be for the others not to be asked, out.

Adaptive requests promise the answers of all views for little more than the cost of one. So the threshold is chosen for
agreement with all views, not for how many photos happen to be right: whether views pay at all, the run's report says.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.inference import answer
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.system.cpus import available_cpus
from training.data.images import LabelledImage

VIEWS = 5
UNSURE_PART = 0.25
"""Part of the photos, the least sure ones, of which all views are computed: beyond it, adaptive would save little."""
MIN_UNSURE = 50
MAX_CHANGED_PART = 0.001
"""Of all photos, how many may answer otherwise than with all views."""
MIN_AGAIN_PART = 0.025
"""Of all photos, how many are looked at again at least, which costs a tenth of a view a photo: the few that change
their answers here say little about where others will."""


def adapt(
    session: onnxruntime.InferenceSession,
    photos: Sequence[LabelledImage],
    preprocess: Preprocess,
    trained_NK: NDArray[np.float32],
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Choose the threshold, for the manifest.

    Args:
        trained_NK: the probabilities of the photos' first view, by which the least sure ones are found.

    Returns:
        `threshold`, of the first view's highest probability: below it the other views are looked at; `views`, which it
        was chosen for; and on these `photos` the `mean_views` and the `agreement` with all views.
    """
    count = min(len(photos), max(MIN_UNSURE, ceil(UNSURE_PART * len(photos))))
    order_N = np.argsort(trained_NK.max(1), kind="stable")[:count]

    def compute(row: int) -> NDArray[np.float32]:
        photo = photos[row]
        return answer(session, make_views(preprocess.canvas(photo.read()), preprocess.crop, count=VIEWS))

    answers = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for done, probabilities_VK in enumerate(pool.map(compute, order_N.tolist()), 1):
            answers.append(probabilities_VK)
            on_progress(done, count)
    answers_NVK = np.stack(answers)
    confidence_N = answers_NVK[:, 0].max(1).astype(np.float64)
    changed_N = answers_NVK[:, 0].argmax(1) != answers_NVK.mean(1).argmax(1)
    allowed, again = int(MAX_CHANGED_PART * len(photos)), ceil(MIN_AGAIN_PART * len(photos))
    threshold = choose(confidence_N, changed_N, allowed=allowed, again=again)
    again_N = confidence_N < threshold
    return {
        "threshold": threshold,
        "views": VIEWS,
        "photos": len(photos),
        "mean_views": 1 + float(again_N.sum()) * (VIEWS - 1) / len(photos),
        "agreement": 1 - float((changed_N & ~again_N).sum()) / len(photos),
    }


def choose(confidence_N: NDArray[np.float64], changed_N: NDArray[np.bool_], *, allowed: int, again: int) -> float:
    """The lowest threshold below which lie at least `again` photos, and all but `allowed` of the changed answers.

    Args:
        confidence_N: of the first view, 0 to 1.
        changed_N: whether all views together answer otherwise than the first.
    """
    ranked = np.sort(confidence_N)
    last = ranked[min(again, len(ranked)) - 1]
    changed = np.sort(confidence_N[changed_N])
    if len(changed) > allowed:
        last = max(last, changed[len(changed) - 1 - allowed])
    above = ranked[ranked > last]
    # midway to the next photo; where that is not known, just above the last
    return min(1.0, float((last + above[0]) / 2 if len(above) else np.nextafter(np.float32(last), np.float32(2))))
