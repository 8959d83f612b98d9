"""Columns of the image become channels of the first convolution, which then computes the same values."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graphs.fold_columns import fold_columns
from serving.bundle.manifest import OUTPUT_NAME
from serving.engine.onnx import load_graph

KERNELS = 8


def quantized_graph(
    *, kernel: int, stride: int, pads: list[int], height: int, width: int, channels: int = 3, bias: bool = True
) -> bytes:
    """Image -> convolution -> its mean, with Q/DQ pairs and random weights, each kernel with a scale of its own."""
    random = np.random.default_rng(kernel + stride)
    # 7 bits: on CPUs without instructions for it, sums of two larger products saturate, in an order of their own
    weight = random.integers(-63, 64, (KERNELS, channels, kernel, kernel)).astype(np.int8)
    scale = random.uniform(0.001, 0.01, KERNELS).astype(np.float32)
    constants = {
        "scale": np.float32(1 / 128),
        "zero": np.uint8(117),
        "out_scale": np.float32(0.02),
        "out_zero": np.uint8(30),
        "weight": weight,
        "weight_scale": scale,
        "weight_zero": np.zeros(KERNELS, np.int8),
        "bias": random.integers(-2000, 2000, KERNELS).astype(np.int32),
        "bias_scale": scale / 128,
        "bias_zero": np.zeros(KERNELS, np.int32),
        "mean": np.float32(127.5),
    }
    node = helper.make_node
    inputs = ["x_dq", "weight_dq", *(["bias_dq"] if bias else [])]
    nodes = [
        node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["transposed"], perm=[0, 3, 1, 2]),
        node("Sub", ["transposed", "mean"], ["centred"]),
        node("Mul", ["centred", "scale"], ["x"]),
        node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"], "x_q"),
        node("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"], "x_dq"),
        node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weight_dq"], "weight_dq", axis=0),
        node("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["bias_dq"], "bias_dq", axis=0),
        node("Conv", inputs, ["maps"], "stem", kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads),
        node("QuantizeLinear", ["maps", "out_scale", "out_zero"], ["maps_q"], "maps_q"),
        node("DequantizeLinear", ["maps_q", "out_scale", "out_zero"], [OUTPUT_NAME], "maps_dq"),
    ]
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, channels])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", KERNELS, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def stem_of(graph: bytes) -> list[int]:
    """Shape of the first convolution's weights."""
    tensors = onnx.load_from_string(graph).graph.initializer
    return next(list(tensor.dims) for tensor in tensors if tensor.name == "weight")


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "folded"),
    [
        pytest.param(3, 2, [0, 0, 1, 1], [16, 12, 3, 2], id="efficientnet of TensorFlow"),
        pytest.param(3, 2, [1, 1, 1, 1], [16, 12, 3, 2], id="mobilenet"),
        pytest.param(5, 2, [2, 2, 2, 2], [16, 12, 5, 3], id="5 x 5"),
        pytest.param(7, 2, [3, 3, 3, 3], [16, 12, 7, 3], id="resnet"),
        pytest.param(4, 4, [0, 0, 0, 0], [8, 12, 4, 1], id="convnext"),
        pytest.param(7, 4, [2, 2, 2, 2], [8, 12, 7, 3], id="poolformer"),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 36)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_gives_the_same_values(
    kernel: int, stride: int, pads: list[int], folded: list[int], height: int, width: int, bias: bool
) -> None:
    graph = quantized_graph(kernel=kernel, stride=stride, pads=pads, height=height, width=width, bias=bias)
    changed = fold_columns(graph)
    assert stem_of(changed) == folded
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    before, after = (load_graph(each)(images) for each in (graph, changed))
    assert len(np.unique(before)) > 100, "too few distinct values to compare"
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stride": 1}, id="stride 1"),
        pytest.param({"width": 30}, id="a width that four does not divide"),
        pytest.param({"channels": 4}, id="four channels"),
        pytest.param({"kernel": 1, "pads": [0, 0, 0, 0]}, id="mostly zeros"),
        pytest.param({"pads": [0, 0, 0, 0]}, id="half as many columns less one"),
    ],
)
def test_a_convolution_that_folding_would_not_make_faster_stays(options: dict[str, int]) -> None:
    usual = {"kernel": 3, "stride": 2, "pads": [1, 1, 1, 1], "height": 32, "width": 32}
    graph = quantized_graph(**(usual | options))  # type: ignore[arg-type]
    assert stem_of(fold_columns(graph)) == stem_of(graph)


def test_a_convolution_in_float_stays() -> None:
    model = onnx.load_from_string(quantized_graph(kernel=3, stride=2, pads=[1, 1, 1, 1], height=32, width=32))
    next(node for node in model.graph.node if node.name == "stem").input[0] = "x"
    assert stem_of(fold_columns(model.SerializeToString())) == [KERNELS, 3, 3, 3]
