"""A graph in; answers of ONNX Runtime on the CPU out.

Photos in; what the network looks at out: view 0 of each, as training's evaluation and the server see it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from serving.image.preprocess import Preprocess
from serving.image.views import make_views
from serving.system.cpus import available_cpus
from training.data.images import LabelledImage

_ERRORS_ONLY = 3


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """A session whose calls take one thread each: several of them run side by side faster than one on all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def answer(session: onnxruntime.InferenceSession, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]` of one batch, uint8 `[N, H, W, 3]`."""
    probabilities: NDArray[np.float32] = session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC})[0]
    return probabilities


def answer_each(
    session: onnxruntime.InferenceSession,
    images_NHWC: NDArray[np.uint8],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]`, computed one image at a time on all cores."""
    answers = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        rows = (images_NHWC[row : row + 1] for row in range(len(images_NHWC)))
        for probabilities in pool.map(lambda row: answer(session, row), rows):
            answers.append(probabilities)
            on_progress(len(answers), len(images_NHWC))
    return np.concatenate(answers)


def load_views(
    photos: Sequence[LabelledImage], preprocess: Preprocess, on_progress: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """View 0 of each photo, uint8 `[N, crop, crop, 3]`.

    Raises:
        DataError: if a photo is gone, or no longer what it was when it was listed.
        ImageError: if it cannot be decoded.
    """
    views_NHWC = np.empty((len(photos), preprocess.crop, preprocess.crop, 3), np.uint8)

    def load(item: tuple[int, LabelledImage]) -> None:
        row, photo = item
        views_NHWC[row] = make_views(preprocess.canvas(photo.read()), preprocess.crop)[0]

    with ThreadPoolExecutor(available_cpus()) as pool:
        for done, _ in enumerate(pool.map(load, enumerate(photos)), 1):
            on_progress(done, len(photos))
    return views_NHWC
