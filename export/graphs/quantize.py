"""INT8 graphs (explicit Q/DQ pairs) from an fp32 graph and the ranges of its activations; sensitivity of single layers.

There are two kinds, because no file serves both runtimes well. ONNX Runtime on a CPU needs uint8 activations with zero
points and every operator quantized that can be. TensorRT needs signed symmetric values, pairs before convolutions and
matrix products and on the skip branch of residual additions, nothing between a convolution, its batch norm and its
ReLU, and float16 between them. There each weight has one scale, and depthwise convolutions stay float16: what that
saves is in docs/design/tensorrt.md.
"""

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from export.graphs.fold_columns import fold_columns
from export.graphs.half_body import MAX_VALUE, body_of, pooling_of, reached, store_int8_weights, to_half_body
from export.inference import predict_each
from serving.bundle.manifest import Runtime
from serving.engine.onnx import load_graph
from training.console import progress

WEIGHTED = ("Conv", "Gemm", "MatMul")
_STOPS = (*WEIGHTED, "QuantizeLinear")
"""Types of the nodes at which the body of a graph begins and ends."""
# A batch norm that folds into no convolution would have its scales quantized: few numbers that accuracy depends on.
_CPU_OPERATORS = sorted((set(QLinearOpsRegistry) | set(QDQRegistry)) - {"BatchNormalization"})
_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
}


def layers(graph: bytes, runtime: Runtime) -> list[str]:
    """Names of the layers that a kind of INT8 quantizes, in the graph's order: they may stay float one by one."""
    model = onnx.load_from_string(graph).graph
    left_out = _depthwise(model) if runtime == "tensorrt" else set()
    return [node.name for node in model.node if node.op_type in WEIGHTED and node.name not in left_out]


def _depthwise(graph: onnx.GraphProto) -> set[str]:
    """Names of the convolutions in which each kernel reads one channel."""
    channels = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) == 4}
    return {
        node.name
        for node in graph.node
        if node.op_type == "Conv"
        and channels.get(node.input[1]) == 1
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    }


def quantize(graph: bytes, ranges: TensorsData, runtime: Runtime, keep_float: Collection[str] = ()) -> bytes:
    """Quantize a graph: per-tensor activations; int8 weights per channel for ONNX Runtime, per tensor for TensorRT.

    For ONNX Runtime weights have 7 bits, -64 to 64. CPUs without VNNI add two products of uint8 and int8 in 16 bits,
    which saturate from 8 bits on, so that their answers would differ from the checked ones: 2 * 255 * 64 < 32,768.

    Args:
        graph: fp32, batch norms folded into convolutions.
        ranges: of every activation, from `calibrate.measure_ranges`.
        runtime: the kind of INT8.
        keep_float: names of `layers` that stay float: float32, or float16 in the body of a graph for TensorRT.

    Returns:
        A serialised ModelProto with the same input and output.
    """
    model = onnx.load_from_string(graph)
    tensorrt = runtime == "tensorrt"
    if not tensorrt:
        _widen_constants(model.graph)
    model = onnx.shape_inference.infer_shapes(model)
    quantizer = QDQQuantizer(
        model,
        per_channel=not tensorrt,
        reduce_range=not tensorrt,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(
            _edges(model.graph) | set(keep_float) | (_depthwise(model.graph) if tensorrt else set())
        ),
        op_types_to_quantize=list(WEIGHTED) if tensorrt else _CPU_OPERATORS,
        extra_options=dict(_TENSORRT_OPTIONS) if tensorrt else {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    if tensorrt:
        _quantize_skip_branches(quantized.graph, ranges)
        store_int8_weights(quantized.graph)
        if _largest(ranges) <= MAX_VALUE:
            quantized = onnx.shape_inference.infer_shapes(quantized)
            before = reached(quantized.graph, [value.name for value in quantized.graph.input], stops=_STOPS)
            to_half_body(quantized.graph, body_of(quantized.graph, before))
    del quantized.metadata_props[:]
    content: bytes = quantized.SerializeToString()
    return content if tensorrt else fold_columns(content)


def _widen_constants(graph: onnx.GraphProto) -> None:
    """Repeat the normalisation's constants of each channel along a row of the image: [1, 3, 1, 1] to [1, 3, 1, W].

    ONNX Runtime moves the transposition of INT8 graphs behind the normalisation. Broadcasting three values along the
    last dimension of an image then takes a quarter of a small network's time; with a row of them it takes almost none.
    """
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    used = {name for node in graph.node if node.op_type in ("Sub", "Mul") for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in used and list(tensor.dims) == [1, 3, 1, 1]:
            tensor.CopyFrom(numpy_helper.from_array(np.tile(numpy_helper.to_array(tensor), width), tensor.name))
            for value in [value for value in graph.value_info if value.name == tensor.name]:
                graph.value_info.remove(value)  # it states the former shape


def _edges(graph: onnx.GraphProto) -> set[str]:
    """Nodes at the graph's two ends, which stay float32 because quantizing them costs more than it saves.

    Before the first weighted layer there are cast, transposition and normalisation of whole images; after the last,
    temperature and softmax. Pooled features and their concatenation are few values, and the maximum and the mean of a
    feature map would have to share one scale.
    """
    fed = reached(graph, [value.name for value in graph.input if value.name], stops=_STOPS)
    behind = reached(graph, [value.name for value in graph.output], forward=False, stops=_STOPS)
    names = {node.name for node in graph.node if node.name in fed or node.name in behind}
    return names | pooling_of(graph)


def _largest(ranges: TensorsData) -> float:
    """The largest absolute value of an activation."""
    return max((float(np.abs(end).max()) for _, data in ranges.items() for end in data.range_value), default=0.0)


def _quantize_skip_branches(graph: onnx.GraphProto, ranges: TensorsData) -> None:
    """Put a Q/DQ pair on the skip branch of each residual addition that has none yet.

    An identity skip shares the pair of the convolution that it bypasses. Where the skip branch has a convolution too,
    it is the input with fewer convolutions before it.
    """
    depth: dict[str, int] = {}
    producers = {}
    for node in graph.node:
        behind = max((depth.get(name, 0) for name in node.input), default=0)
        for output in node.output:
            depth[output] = behind + (node.op_type == "Conv")
            producers[output] = node
    nodes = []
    for node in graph.node:
        branches = [name for name in node.input if name in producers]
        quantized = [name for name in branches if producers[name].op_type == "DequantizeLinear"]
        if node.op_type == "Add" and len(branches) == 2 and not quantized and depth[branches[0]] != depth[branches[1]]:
            skip = min(branches, key=lambda name: depth[name])
            low, high = ranges[skip].range_value
            scale = np.float32(max(abs(float(np.min(low))), abs(float(np.max(high))), 1e-6) / 127)
            graph.initializer.append(numpy_helper.from_array(np.array(scale), f"{skip}.skip_scale"))
            graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{skip}.skip_zero"))
            parameters = [f"{skip}.skip_scale", f"{skip}.skip_zero"]
            nodes += [
                helper.make_node("QuantizeLinear", [skip, *parameters], [f"{skip}.skip_int8"], f"{skip}.skip_q"),
                helper.make_node(
                    "DequantizeLinear", [f"{skip}.skip_int8", *parameters], [f"{skip}.skip"], f"{skip}.skip_dq"
                ),
            ]
            node.input[list(node.input).index(skip)] = f"{skip}.skip"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def measure_int8_sensitivity(
    graph: bytes, ranges: TensorsData, runtime: Runtime, images_NHWC: NDArray[np.uint8]
) -> dict[str, float]:
    """Sensitivity of each layer to being quantized alone, the most sensitive first.

    It is the mean Kullback-Leibler divergence, in nats, from the fp32 graph's probabilities to those of the graph in
    which only this layer is quantized.

    Args:
        images_NHWC: uint8 `[N, crop, crop, 3]`; no validation images.
    """
    names = layers(graph, runtime)
    expected_NK = predict_each(load_graph(graph), images_NHWC)
    sensitivities = {}
    with progress("measuring sensitivity", "layers") as on_progress:
        for done, name in enumerate(names, 1):
            candidate = quantize(graph, ranges, runtime, [other for other in names if other != name])
            sensitivities[name] = _divergence(expected_NK, predict_each(load_graph(candidate), images_NHWC))
            on_progress(done, len(names))
    return dict(sorted(sensitivities.items(), key=lambda item: -item[1]))


def _divergence(expected_NK: NDArray[np.float32], found_NK: NDArray[np.float32]) -> float:
    """Mean KL divergence; probabilities below 1e-7 count as 1e-7, so that a zero does not make it infinite."""
    p, q = (np.maximum(table.astype(np.float64), 1e-7) for table in (expected_NK, found_NK))
    return float((p * np.log(p / q)).sum(1).mean())
