"""A graph in; answers of ONNX Runtime on the CPU out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.bundle import INPUT_NAME, OUTPUT_NAME
from serving.cpus import available_cpus

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
