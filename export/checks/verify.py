"""All checks of an exported graph: form, operators, batch sizes, agreement on real images, a cross-check with OpenVINO.

A graph that fails a check is not written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.checks.checks import CheckError, NotFiniteError, ParityError, Tolerances, check_agreement, compare
from export.checks.openvino_process import ProcessFailed, run_openvino
from export.checks.tensorrt_parser import find_problems
from export.graphs.onnx import DeployedModel
from export.inference import predict_each
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Precision, Runtime
from serving.engine.onnx import Compute, load_graph
from training.console import progress, say
from training.data.images import LabelledImage, labels_of

CHECK_BATCHES = (1, 3, 32)
TRAINED = "the trained network"
CROSS_CHECKED_IMAGES = 500
"""The cross-check compares two readings of the same graph, which needs fewer images than accuracy does."""

TENSORRT_OPSETS = range(9, 26)
_OPERATORS = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod
    Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""
TENSORRT_OPERATORS = frozenset(_OPERATORS.split())
"""Operators of ONNX's default domain that TensorRT 11's parser imports; see docs/operators.md of
github.com/onnx/onnx-tensorrt."""


@dataclass(frozen=True)
class ParityReference:
    """Reference for every graph of a run."""

    model: DeployedModel
    """The trained network, float32."""
    images: Sequence[LabelledImage]
    """The validation images."""
    views_NHWC: NDArray[np.uint8]
    """View 0 of each image, at the size of the network's input."""
    trained_NK: NDArray[np.float32]
    """The probabilities that the run recorded for each image."""
    tolerances: Tolerances

    @property
    def crop(self) -> int:
        """Side of the input in pixels."""
        return int(self.views_NHWC.shape[1])

    @property
    def labels_N(self) -> NDArray[np.int64]:
        """The correct class of each image."""
        return labels_of(self.images)

    @property
    def confidence_N(self) -> NDArray[np.float32]:
        """The highest probability of each image. Low ones are NaN where the run has more than 100 classes."""
        return np.asarray(np.nanmax(self.trained_NK, 1))

    def least_confident(self, count: int) -> NDArray[np.int64]:
        """Rows of the images of lowest confidence, where a difference shows first; a smaller set is repeated."""
        order_N = np.argsort(self.confidence_N, kind="stable")
        return order_N[np.arange(count) % len(order_N)]


def verify(graph: bytes, precision: Precision, runtime: Runtime, reference: ParityReference) -> dict[str, Any]:
    """Run all checks of a graph.

    Returns:
        The parity figures for the manifest.

    Raises:
        CheckError: at the first check that fails.
    """
    what = f"{precision} for TensorRT" if runtime == "tensorrt" else precision
    check_graph(graph, crop=reference.crop, classes=reference.trained_NK.shape[1])
    if runtime == "tensorrt":  # fp32 and fp16 are read when an engine is built
        check_operators(graph)
    compute = load_graph(graph)
    by_batch = check_batches(compute, reference, reference.tolerances.max_diff(precision))
    with progress(f"parity check, {what}") as on_progress:
        found_NK = predict_each(compute, reference.views_NHWC, on_progress)
    found = compare(found_NK, reference.trained_NK, reference.labels_N)
    worst = reference.images[found.worst].path
    check_agreement(found, precision, reference.tolerances, what=what, reference=TRAINED, worst_image=worst)
    return {
        "reference": "torch",
        "max_abs_diff_by_batch": by_batch,
        **found.to_json(),
        "second_runtime": cross_check(graph, precision, what, found_NK, reference),  # the manifest's name for it
    }


def check_graph(graph: bytes, *, crop: int, classes: int) -> None:
    """Check that a graph is valid ONNX with a symbolic batch dimension and the engine contract's input and output.

    Raises:
        CheckError: if it is not.
    """
    model = onnx.load_from_string(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(f"the ONNX checker rejects the graph: {error}") from error
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


def check_operators(graph: bytes) -> None:
    """Check that TensorRT's parser reads the graph. Where TensorRT for RTX is not installed, a list takes its place.

    Raises:
        CheckError: naming the node and its operator.
    """
    problems = find_problems(graph)
    if problems is None:
        check_listed_operators(graph)
    elif problems:
        raise CheckError(
            f"TensorRT cannot read the graph: {'; '.join(problems)}. Choose a backbone without it, or export without "
            "int8-trt"
        )


def check_listed_operators(graph: bytes) -> None:
    """Check that TensorRT's parser has the opset and every operator, and that uint8 is cast before it is computed with.

    Raises:
        CheckError: naming the node and its operator.
    """
    model = onnx.load_from_string(graph)
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise CheckError(f"the graph uses operators of {opset.domain!r}; TensorRT has only ONNX's own")
        if opset.version not in TENSORRT_OPSETS:
            first, last = TENSORRT_OPSETS[0], TENSORRT_OPSETS[-1]
            raise CheckError(f"the graph has opset {opset.version}; TensorRT reads {first} to {last}")
    inputs = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type not in TENSORRT_OPERATORS:
            raise CheckError(
                f"node {node.name!r} is a {node.op_type}, which TensorRT does not have: choose a backbone without it, "
                "or export without int8-trt"
            )
        if node.op_type not in ("Cast", "Shape") and inputs.intersection(node.input):
            raise CheckError(f"node {node.name!r} ({node.op_type}) reads uint8 images; TensorRT can only cast them")


def check_batches(compute: Compute, reference: ParityReference, allowed: float | None) -> dict[str, float]:
    """Check that batches of 1, 3 and 32 run and give torch's probabilities for the same pixels.

    Args:
        allowed: largest difference of a probability; None where agreement on all images is checked instead.

    Returns:
        The largest difference by batch size.

    Raises:
        CheckError: naming the image that differs most.
    """
    largest: dict[str, float] = {}
    for batch in CHECK_BATCHES:
        rows = reference.least_confident(batch)
        images_NHWC = reference.views_NHWC[rows]
        with torch.inference_mode():
            expected_NK = reference.model(torch.from_numpy(images_NHWC)).numpy()
        found_NK = compute(images_NHWC)
        if found_NK.shape != expected_NK.shape:
            raise CheckError(f"a batch of {batch} gives shape {found_NK.shape}, expected {expected_NK.shape}")
        difference_N = np.abs(found_NK - expected_NK).max(1)
        worst = int(difference_N.argmax())
        largest[str(batch)] = float(difference_N[worst])
        place = reference.images[rows[worst]].path
        if not np.isfinite(difference_N[worst]):
            raise NotFiniteError(f"a batch of {batch}", place, int(rows[worst]))
        if allowed is not None and difference_N[worst] > allowed:
            raise ParityError(
                f"ONNX Runtime and torch differ by {difference_N[worst]:.2e} in a batch of {batch} (allowed: "
                f"{allowed:.0e}), most on {place}",
                excess=difference_N[worst] / allowed if allowed else np.inf,
            )
    return largest


def cross_check(
    graph: bytes, precision: Precision, what: str, expected_NK: NDArray[np.float32], reference: ParityReference
) -> dict[str, Any] | None:
    """Check that OpenVINO, where it is installed, reads the same graph and agrees with ONNX Runtime.

    fp16 is left out, because OpenVINO computes it in float32.

    Args:
        expected_NK: ONNX Runtime's probabilities.

    Returns:
        The figures for the manifest, or `name` and `failure` if OpenVINO computed nothing; None without OpenVINO.

    Raises:
        CheckError: if the two do not agree.
    """
    try:
        name = f"openvino {version('openvino')}"
    except PackageNotFoundError:
        return None
    if precision == "fp16":
        return None
    rows = slice(0, CROSS_CHECKED_IMAGES)
    try:
        with progress(f"cross-check with OpenVINO, {what}") as on_progress:
            found_NK = run_openvino(graph, reference.views_NHWC[rows], on_progress)
    except ProcessFailed as error:
        say(f"cross-check with OpenVINO, {what}: not compared: {error}")
        return {"name": name, "failure": str(error)}
    found = compare(found_NK, expected_NK[rows], reference.labels_N[rows])
    worst = reference.images[found.worst].path
    what = f"{what} in {name}"
    check_agreement(found, precision, reference.tolerances, what=what, reference="ONNX Runtime", worst_image=worst)
    return {
        "name": name,
        "photos": found.images,
        "max_abs_diff": found.max_abs_diff,
        "agreement": found.agreement,
    }
