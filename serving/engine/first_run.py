"""Check of an engine that was built on another host: its first run on this one agrees with ONNX Runtime on the CPU."""

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Bundle, Precision
from serving.engine.onnx import load_graph
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine
from serving.engine.tensorrt_library import EngineBuildError

IMAGES = 4
TOLERANCES: dict[Precision, float] = {"fp32": 0.01, "fp16": 0.05, "int8": 0.25}
"""Largest difference of a probability. It finds an engine that computes something else, not a loss of accuracy, which
the export has checked."""


def check_first_run(plan: LoadedPlan, bundle: Bundle, precision: Precision) -> None:
    """Compute a few images with the engine and with the ONNX file that it was built from.

    Raises:
        EngineBuildError: if they differ, or the engine does not run.
    """
    artifact = bundle.artifact(precision, "tensorrt")
    images_NHWC = make_images(bundle.manifest.preprocess.crop)
    rows = max(plan.min_batch, min(IMAGES, plan.max_batch))
    images_NHWC = np.resize(images_NHWC, (rows, *images_NHWC.shape[1:]))
    expected_NK = load_graph(bundle.read(artifact))(images_NHWC)
    with TensorRTEngine(plan, rows) as engine:
        found_NK = engine.run(images_NHWC)
    difference = float(np.abs(found_NK - expected_NK).max())
    if not difference <= TOLERANCES[precision]:
        raise EngineBuildError(
            f"the engine's first run differs from {artifact.file} in ONNX Runtime by {difference:.1e} in a probability "
            f"(allowed: {TOLERANCES[precision]}): it is not used"
        )


def make_images(crop: int) -> NDArray[np.uint8]:
    """Images that differ in brightness, colour and structure: uint8 `[4, crop, crop, 3]`."""
    across = np.linspace(0, 1, crop)
    waves_HW = 0.5 + 0.5 * np.sin(40 * across[:, None]) * np.cos(25 * across[None, :])
    colours = ((255, 40, 10), (20, 200, 60), (15, 30, 220), (240, 240, 240))
    images = [np.roll(waves_HW, 7 * row, 1)[:, :, None] * np.array(colour) for row, colour in enumerate(colours)]
    return np.stack(images).astype(np.uint8)
