"""Work on many images on all cores: their views, and the probabilities of an exported graph."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.engine.onnx import Compute
from serving.image.preprocess import Preprocess
from serving.system.cpus import available_cpus
from training.data.images import LabelledImage

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


def predict_each(
    compute: Compute, images_NHWC: NDArray[np.uint8], on_progress: Progress = no_progress
) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]`, computed one image at a time on all cores, which is faster than one large batch.

    Args:
        compute: from `serving.engine.onnx.load_graph`.
    """
    rows = [images_NHWC[row : row + 1] for row in range(len(images_NHWC))]
    return np.concatenate(map_in_threads(compute, rows, on_progress))


def load_views(
    images: Sequence[LabelledImage], preprocess: Preprocess, on_progress: Progress = no_progress
) -> NDArray[np.uint8]:
    """View 0 of each image, uint8 `[N, crop, crop, 3]`, as training's evaluation and the server make it.

    Raises:
        DataError: if an image is missing or has changed since it was listed.
        ImageError: if it cannot be decoded.
    """
    views_NHWC = np.empty((len(images), preprocess.crop, preprocess.crop, 3), np.uint8)

    def load(row: int) -> None:
        views_NHWC[row] = images[row].views(preprocess)[0]

    map_in_threads(load, range(len(images)), on_progress)
    return views_NHWC


def map_in_threads(function: Callable[[T], R], items: Sequence[T], on_progress: Progress) -> list[R]:
    """Call a function for each item on all cores; the results are in the order of the items."""
    results = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            on_progress(len(results), len(items))
    return results
