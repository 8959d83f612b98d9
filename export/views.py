"""Photos in; what the network looks at out: view 0 of each, as training's evaluation and the server see it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from serving.cpus import available_cpus
from serving.preprocess import Preprocess
from serving.views import look
from training.data import Photo


def load_views(
    photos: Sequence[Photo], preprocess: Preprocess, on_progress: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """View 0 of each photo, uint8 `[N, crop, crop, 3]`.

    Raises:
        DataError: if a photo is gone, or no longer what it was when it was listed.
        ImageError: if it cannot be decoded.
    """
    views_NHWC = np.empty((len(photos), preprocess.crop, preprocess.crop, 3), np.uint8)

    def load(item: tuple[int, Photo]) -> None:
        row, photo = item
        views_NHWC[row] = look(preprocess.canvas(photo.read()), preprocess.crop)[0]

    with ThreadPoolExecutor(available_cpus()) as pool:
        for done, _ in enumerate(pool.map(load, enumerate(photos)), 1):
            on_progress(done, len(photos))
    return views_NHWC
