"""Lowers the precision of a network as far as its checks allow: the most sensitive layers stay in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor

from export.checks.checks import CheckError, NotFiniteError, ParityError
from export.checks.verify import ParityReference, verify
from export.graphs.fp16 import find_overflows, fold_norms, measure_fp16_sensitivity, to_fp16
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.quantize import measure_int8_sensitivity, quantize
from serving.bundle.manifest import Runtime
from training.console import counted, progress, say
from training.networks.model import Classifier

INT8_SENSITIVITY_IMAGES, FP16_IMAGES = 48, 16
"""Calibration images for the sensitivity of layers, and for float16's biases and sensitivity, which torch computes."""
OVERFLOW_IMAGES = 256
"""Validation images, evenly spread, on which float16 must not overflow."""
MAX_FLOAT_INT8, MAX_FLOAT_FP16 = 16, 8
"""Most layers of INT8 and blocks of fp16 that may stay in float32; with more, the lower precision gains too little."""
FLOAT_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of layers that stay in float32, tried in this order."""


@dataclass(frozen=True)
class Converted:
    """A graph of lower precision that passed its checks."""

    graph: bytes
    parity: dict[str, Any]
    float_layers: dict[str, float]
    """The layers left in float32 with their sensitivity, the most sensitive first."""


def convert_until_passed(
    convert: Callable[[Sequence[str]], bytes],
    check: Callable[[bytes], dict[str, Any]],
    measure_sensitivity: Callable[[], dict[str, float]],
    *,
    most_float: int,
    advice: str,
) -> Converted:
    """Convert all layers; if the checks fail, leave the most sensitive 1, 2, 3, 4, 6, 8, ... layers in float32.

    Args:
        convert: returns the graph in which the named layers stay float32.
        check: returns parity figures, or raises CheckError.
        measure_sensitivity: returns the sensitivity of every layer, the most sensitive first; called if needed.
        most_float: largest number of layers that may stay in float32.
        advice: what a user can do if that does not suffice, for the message.

    Raises:
        CheckError: with the best result, if the checks fail with `most_float` layers (or all but one) in float32; at
            once, if they fail for another reason than too large a difference.
    """
    best: tuple[ParityError, int] | None = None
    sensitivities: dict[str, float] = {}
    for count in (0, *FLOAT_COUNTS):
        if count == 1:
            say("measuring the sensitivity of each layer; to do without, press Ctrl-C and leave this precision out")
            sensitivities = measure_sensitivity()
        if count > min(most_float, max(0, len(sensitivities) - 1)):
            break
        kept = dict(list(sensitivities.items())[:count])
        graph = convert(list(kept))
        try:
            parity = check(graph)
        except ParityError as error:
            say(f"with {counted(count, 'layer')} in float32: {error}")
            if best is None or error.excess < best[0].excess:
                best = error, count
            continue
        if kept:
            say(f"passed with {count} of {len(sensitivities)} layers in float32: {', '.join(kept)}")
        return Converted(graph, parity, kept)
    assert best is not None
    failure, count = best
    raise CheckError(
        f"{failure}. That is the best result, with {count} of {len(sensitivities)} layers in float32: {advice}"
    )


def export_fp16(
    classifier: Classifier, temperature: float, calibration_NHWC: NDArray[np.uint8], reference: ParityReference
) -> tuple[Converted, dict[str, Any]]:
    """Export a network whose body computes in float16. Blocks in which float16 overflows stay in float32.

    Overflows are looked for in the validation images too. ONNX Runtime shows few of them on a CPU, where it computes
    neighbouring layers in float32; a GPU shows them all.

    Args:
        calibration_NHWC: uint8 `[N, crop, crop, 3]`; the first few are used.

    Returns:
        The graph, and facts about it for the manifest.

    Raises:
        CheckError: if the checks fail.
        ValueError: naming the layer, if too many blocks overflow.
    """
    images = torch.from_numpy(calibration_NHWC[:FP16_IMAGES])
    folded = fold_norms(classifier, images[:1])
    overflows: dict[str, str] = {}

    def find(images_NHWC: Tensor) -> bool:
        """Find more overflows; whether there are any."""
        known = set(overflows)
        overflows.update(find_overflows(folded, images_NHWC, overflows, most=MAX_FLOAT_FP16))
        for block in overflows.keys() - known:
            say(f"fp16: layer {overflows[block]} exceeds float16's range; block {block} stays in float32")
        return len(overflows) > len(known)

    def convert(keep_float: Sequence[str]) -> bytes:
        model = DeployedModel(to_fp16(folded, images, [*overflows, *keep_float]), temperature).eval()
        return to_onnx(model, reference.crop)

    def measure_sensitivity() -> dict[str, float]:
        sensitivities = measure_fp16_sensitivity(folded, images)
        return {block: value for block, value in sensitivities.items() if block not in overflows}

    find(images)
    rows = np.linspace(0, len(reference.views_NHWC) - 1, min(len(reference.views_NHWC), OVERFLOW_IMAGES)).astype(int)
    with progress("looking for overflows of float16") as on_progress:
        for done in range(0, len(rows), FP16_IMAGES):
            find(torch.from_numpy(reference.views_NHWC[rows[done : done + FP16_IMAGES]]))
            on_progress(min(done + FP16_IMAGES, len(rows)), len(rows))
    while True:
        try:
            converted = convert_until_passed(
                convert,
                lambda graph: verify(graph, "fp16", "onnxruntime", reference),
                measure_sensitivity,
                most_float=MAX_FLOAT_FP16 - len(overflows),
                advice="raise --max-diff-fp16, or export without fp16",
            )
        except NotFiniteError as error:  # on another validation image
            if not find(torch.from_numpy(reference.views_NHWC[error.row : error.row + 1])):
                raise
        else:
            return converted, {"overflows": overflows} if overflows else {}


def export_int8(
    fp32: bytes,
    ranges: TensorsData,
    runtime: Runtime,
    calibration_NHWC: NDArray[np.uint8],
    reference: ParityReference,
) -> Converted:
    """Export a network in INT8 from its fp32 graph and the ranges of its activations.

    Args:
        calibration_NHWC: uint8 `[N, crop, crop, 3]`; the first of them show how sensitive layers are.

    Raises:
        CheckError: if the checks fail.
    """
    return convert_until_passed(
        lambda keep_float: quantize(fp32, ranges, runtime, keep_float),
        lambda graph: verify(graph, "int8", runtime, reference),
        lambda: measure_int8_sensitivity(fp32, ranges, runtime, calibration_NHWC[:INT8_SENSITIVITY_IMAGES]),
        most_float=MAX_FLOAT_INT8,
        advice="calibrate on more images (--calibration-images), lower --min-agreement or raise --max-accuracy-loss, "
        "or export without int8",
    )
