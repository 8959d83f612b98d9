"""A graph and calibration photos in; an INT8 graph that passes its gate out, its most damaged layers left in float.

All layers are quantised first. If that fails the gate, the damage of each layer is measured: with it alone quantised,
how far the probabilities of the calibration photos move. Then the worst 1, 2, 3, ... layers stay float until the
gate is passed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import TensorsData

from export.checks.checks import CheckError, ParityError
from export.graphs.quantize import layers, quantize
from export.inference import answer_each, open_session
from serving.bundle.manifest import Runtime
from training.console import progress, say

KEPT = (1, 2, 3, 4, 6, 8, 12, 16)
"""How many layers are left in float, one try after the other. Beyond these, INT8 is no longer worth its name."""


def quantize_until_passed(
    graph: bytes,
    ranges: TensorsData,
    runtime: Runtime,
    calibration_NHWC: NDArray[np.uint8],
    gate: Callable[[bytes], dict[str, Any]],
) -> tuple[bytes, dict[str, Any], list[dict[str, Any]]]:
    """Quantise as much as the gate lets pass.

    Args:
        calibration_NHWC: uint8 `[N, crop, crop, 3]`; damage is never measured on validation photos.
        gate: returns parity figures, or raises CheckError.

    Returns:
        The graph, its parity, and the layers left in float with their damage (empty if all are quantised).

    Raises:
        CheckError: if it still fails with 16 layers (or all but one) in float.
    """
    candidate = quantize(graph, ranges, runtime)
    try:
        return candidate, gate(candidate), []
    except ParityError as error:
        say(f"{error}; looking for the layers that do the damage")
        failure = error
    damaged = measure_damage(graph, ranges, runtime, calibration_NHWC)
    for count in KEPT:
        if count >= len(damaged):
            break
        kept = damaged[:count]
        candidate = quantize(graph, ranges, runtime, [layer["layer"] for layer in kept])
        try:
            parity = gate(candidate)
        except ParityError as error:
            failure = error
            continue
        say(f"passed with {count} of {len(damaged)} layers in float: {', '.join(layer['layer'] for layer in kept)}")
        return candidate, parity, kept
    raise CheckError(
        f"{failure}. That is with up to {min(KEPT[-1], len(damaged) - 1)} of {len(damaged)} layers in float: calibrate "
        "on more photos (--calibration-photos), relax --min-agreement or --max-accuracy-loss, or export without int8"
    )


def measure_damage(
    graph: bytes, ranges: TensorsData, runtime: Runtime, images_NHWC: NDArray[np.uint8]
) -> list[dict[str, Any]]:
    """Layers and what quantising each alone does, the most damaged first.

    Damage is the mean Kullback-Leibler divergence, in nats, from the float graph's probabilities to those of the graph
    with this layer quantised.
    """
    names = layers(graph)
    expected_NK = answer_each(open_session(graph), images_NHWC)
    damaged = []
    with progress("measuring damage", "layers") as on_progress:
        for done, name in enumerate(names, 1):
            alone = quantize(graph, ranges, runtime, [other for other in names if other != name])
            answers_NK = answer_each(open_session(alone), images_NHWC)
            damaged.append({"layer": name, "damage": _divergence(expected_NK, answers_NK)})
            on_progress(done, len(names))
    return sorted(damaged, key=lambda layer: -layer["damage"])


def _divergence(expected_NK: NDArray[np.float32], answers_NK: NDArray[np.float32]) -> float:
    """Mean KL divergence; probabilities below 1e-7 count as 1e-7, so that one of 0 does not make it infinite."""
    p, q = (np.maximum(table.astype(np.float64), 1e-7) for table in (expected_NK, answers_NK))
    return float((p * np.log(p / q)).sum(1).mean())
