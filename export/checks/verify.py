"""An ONNX graph, the network that was trained, and real photos in; figures of how they agree out, or a CheckError.

Nothing that fails a gate is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.checks.agreement import check_agreement, compare
from export.checks.checks import CheckError, ParityError, Tolerances
from export.checks.cross_check import PHOTOS, run_openvino, second_runtime
from export.checks.operators import check_operators
from export.graphs.onnx import DeployedModel
from export.inference import answer, answer_each, open_session
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Precision, Runtime
from training.console import progress
from training.data.images import LabelledImage

CHECK_BATCHES = (1, 3, 32)


@dataclass(frozen=True)
class ParityReference:
    """What every graph of a run is held against."""

    model: DeployedModel
    """The trained network, float32."""
    crop: int
    classes: int
    photos: Sequence[LabelledImage]
    """The validation photos."""
    views_NHWC: NDArray[np.uint8]
    trained_NK: NDArray[np.float32]
    """What the run recorded for each photo."""
    tolerances: Tolerances

    @property
    def labels_N(self) -> NDArray[np.int64]:
        return np.array([photo.label for photo in self.photos], np.int64)

    def undecided(self, count: int) -> NDArray[np.int64]:
        """Rows of the photos that the network is least sure about: where a difference shows first.

        A smaller set is repeated.
        """
        order_N = np.argsort(np.nanmax(self.trained_NK, 1), kind="stable")
        return order_N[np.arange(count) % len(order_N)]


def verify(graph: bytes, precision: Precision, runtime: Runtime, reference: ParityReference) -> dict[str, Any]:
    """Send a graph through all checks: form, operators, batch sizes, answers on every photo, a second runtime.

    Returns:
        The parity figures for the manifest.

    Raises:
        CheckError: at the first gate that it does not pass.
    """
    what = f"{precision} for TensorRT" if runtime == "tensorrt" else precision
    check_graph(graph, crop=reference.crop, classes=reference.classes)
    if precision != "int8" or runtime == "tensorrt":
        check_operators(graph)
    session = open_session(graph)
    by_batch = check_batches(session, reference, reference.tolerances.max_diff(precision))
    with progress(f"comparing answers, {what}") as on_progress:
        answers_NK = answer_each(session, reference.views_NHWC, on_progress)
    found = compare(answers_NK, reference.trained_NK, reference.labels_N)
    check_agreement(found, precision, reference.tolerances, what, reference.photos[found.worst].path)
    return {
        "reference": "torch",
        "max_abs_diff_by_batch": by_batch,
        **found.to_json(),
        "second_runtime": check_second_runtime(graph, precision, what, answers_NK, reference),
    }


def check_graph(graph: bytes, *, crop: int, classes: int) -> None:
    """Gate: the graph is valid ONNX, with a symbolic batch dimension and the engine contract's input and output.

    Raises:
        CheckError: if it is not.
    """
    model = onnx.load_from_string(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(f"the ONNX checker refuses the graph: {error}") from error
    for kind, values, name, element, shape in (
        ("input", model.graph.input, INPUT_NAME, onnx.TensorProto.UINT8, (crop, crop, 3)),
        ("output", model.graph.output, OUTPUT_NAME, onnx.TensorProto.FLOAT, (classes,)),
    ):
        if [value.name for value in values] != [name]:
            raise CheckError(f"the graph's {kind}s are {[value.name for value in values]}; expected only {name!r}")
        tensor = values[0].type.tensor_type
        sizes = tensor.shape.dim
        if tensor.elem_type != element or tuple(size.dim_value for size in sizes[1:]) != shape:
            raise CheckError(f"the graph's {kind} {name} has another type or shape than [N, {shape}]: {tensor}")
        if not sizes[0].dim_param:
            raise CheckError(f"the graph's {kind} {name} has a fixed batch of {sizes[0].dim_value}, not a symbolic one")


def check_batches(
    session: onnxruntime.InferenceSession, reference: ParityReference, allowed: float | None
) -> dict[str, float]:
    """Gate: batches of 1, 3 and 32 run, and give torch's probabilities for the same pixels.

    Args:
        allowed: largest difference of a probability; None where the answers are judged on all photos instead.

    Returns:
        The largest difference by batch size.

    Raises:
        CheckError: naming the photo that differs most.
    """
    largest: dict[str, float] = {}
    for batch in CHECK_BATCHES:
        rows = reference.undecided(batch)
        images_NHWC = reference.views_NHWC[rows]
        with torch.inference_mode():
            expected_NK = reference.model(torch.from_numpy(images_NHWC)).numpy()
        answers_NK = answer(session, images_NHWC)
        if answers_NK.shape != expected_NK.shape:
            raise CheckError(f"a batch of {batch} gives shape {answers_NK.shape}, expected {expected_NK.shape}")
        difference_N = np.abs(answers_NK - expected_NK).max(1)
        worst = int(difference_N.argmax())
        largest[str(batch)] = float(difference_N[worst])
        if allowed is not None and not difference_N[worst] <= allowed:
            raise ParityError(
                f"ONNX Runtime and torch differ by {difference_N[worst]:.2e} in a batch of {batch} (allowed: "
                f"{allowed:.0e}), most on {reference.photos[rows[worst]].path}"
            )
    return largest


def check_second_runtime(
    graph: bytes, precision: Precision, what: str, answers_NK: NDArray[np.float32], reference: ParityReference
) -> dict[str, Any] | None:
    """Gate: OpenVINO, where it is installed, reads the same graph and agrees with ONNX Runtime.

    Not asked about fp16, which OpenVINO computes in float32.

    Raises:
        CheckError: if it does not agree.
    """
    name = second_runtime()
    if name is None or precision == "fp16":
        return None
    rows = slice(0, PHOTOS)
    with progress(f"second runtime, {what}") as on_progress:
        others_NK = run_openvino(graph, reference.views_NHWC[rows], on_progress)
    found = compare(others_NK, answers_NK[rows], reference.labels_N[rows])
    check_agreement(
        found, precision, reference.tolerances, f"{name}, running {what},", reference.photos[found.worst].path
    )
    return {
        "name": name,
        "photos": found.photos,
        "max_abs_diff": found.max_abs_diff,
        "agreement": found.agreement,
    }
