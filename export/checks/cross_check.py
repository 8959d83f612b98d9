"""A graph and images in; the answers of a second, independent runtime out: OpenVINO, where it is installed."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import INPUT_NAME

PHOTOS = 500
"""Compared at most: it is another reading of the same graph that is looked for, not another accuracy."""
_BATCH = 4


def second_runtime() -> str | None:
    """`openvino RELEASE`, or None if it is not installed."""
    try:
        return f"openvino {version('openvino')}"
    except PackageNotFoundError:
        return None


def run_openvino(
    graph: bytes, images_NHWC: NDArray[np.uint8], on_progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """Probabilities float32 `[N, K]` of uint8 images `[N, H, W, 3]`, computed by OpenVINO on the CPU."""
    import openvino

    core = openvino.Core()
    # Without the hint OpenVINO computes fp32 graphs in bfloat16 where the CPU has it, and differs by several percent.
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = []
    for first in range(0, len(images_NHWC), _BATCH):
        answers.append(np.array(compiled({INPUT_NAME: images_NHWC[first : first + _BATCH]})[0]))
        on_progress(min(first + _BATCH, len(images_NHWC)), len(images_NHWC))
    return np.concatenate(answers)
