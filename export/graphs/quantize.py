"""An fp32 graph and the ranges of its activations in; an INT8 graph (explicit Q/DQ pairs) out.

Two kinds, because no one file serves both. ONNX Runtime on a CPU wants uint8 activations with zero points, and every
operator quantised that can be. TensorRT wants signed symmetric values, pairs before convolutions and matrix products
and on the skip branch of residual additions, and nothing between a convolution, its batch norm and its ReLU.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from export.graphs.fold_columns import fold_columns
from serving.bundle.manifest import Runtime

WEIGHTED = ("Conv", "Gemm", "MatMul")
# A batch norm that folds into no convolution would have its scales quantised: a few numbers, and much of the accuracy.
_CPU_OPERATORS = sorted((set(QLinearOpsRegistry) | set(QDQRegistry)) - {"BatchNormalization"})
_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
}


def layers(graph: bytes) -> list[str]:
    """Names of the convolutions and matrix products, in the graph's order: what may be left in float."""
    return [node.name for node in onnx.load_from_string(graph).graph.node if node.op_type in WEIGHTED]


def quantize(graph: bytes, ranges: TensorsData, runtime: Runtime, keep_float: Collection[str] = ()) -> bytes:
    """Quantise a graph: per-channel int8 weights, per-tensor activations.

    Args:
        graph: fp32, batch norms folded into convolutions.
        ranges: of every activation, from `measure_ranges`.
        runtime: which kind of INT8.
        keep_float: names of `layers` that stay float32.

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
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(_edges(model.graph) | set(keep_float)),
        op_types_to_quantize=list(WEIGHTED) if tensorrt else _CPU_OPERATORS,
        extra_options=dict(_TENSORRT_OPTIONS) if tensorrt else {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    if tensorrt:
        _quantize_skip_branches(quantized.graph, ranges)
    for stored in list(quantized.metadata_props):
        quantized.metadata_props.remove(stored)
    content: bytes = quantized.SerializeToString()
    return content if tensorrt else fold_columns(content)


def _widen_constants(graph: onnx.GraphProto) -> None:
    """Repeat the normalisation's constants of each channel along a row of the picture: [1, 3, 1, 1] to [1, 3, 1, W].

    ONNX Runtime moves the transposition of INT8 graphs behind the normalisation. Three values broadcast along the last
    dimension of a picture then take a fourth of the whole network's time; a row of them takes next to none.
    """
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    used = {name for node in graph.node if node.op_type in ("Sub", "Mul") for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in used and list(tensor.dims) == [1, 3, 1, 1]:
            tensor.CopyFrom(numpy_helper.from_array(np.tile(numpy_helper.to_array(tensor), width), tensor.name))
            for value in [value for value in graph.value_info if value.name == tensor.name]:
                graph.value_info.remove(value)  # it states the former shape


def _edges(graph: onnx.GraphProto) -> set[str]:
    """Nodes on the graph's two edges, which stay float32 because quantising them costs more than it saves.

    Before the first weighted layer lie cast, transposition and normalisation of whole pictures; after the last,
    temperature and softmax. Pooled features (and their concatenation) are few, and the largest and the mean of a map
    would have to share one scale.
    """
    fed = _reached(graph, [value.name for value in graph.input if value.name], forward=True)
    behind = _reached(graph, [value.name for value in graph.output], forward=False)
    names = {node.name for node in graph.node if node.name in fed or node.name in behind}
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        sources = [producers[name] for name in node.input if name in producers]
        if node.op_type == "Concat" and all(source.op_type.startswith("Reduce") for source in sources):
            names |= {node.name} | {source.name for source in sources}
    return names


def _reached(graph: onnx.GraphProto, tensors: list[str], *, forward: bool) -> set[str]:
    """Names of the nodes that can be reached from tensors without crossing a weighted layer."""
    known, nodes = set(tensors), set()
    for node in graph.node if forward else reversed(graph.node):
        near, far = (node.input, node.output) if forward else (node.output, node.input)
        if node.op_type not in WEIGHTED and known.intersection(near):
            nodes.add(node.name)
            known.update(far)
    return nodes


def _quantize_skip_branches(graph: onnx.GraphProto, ranges: TensorsData) -> None:
    """Put a Q/DQ pair on the skip branch of each residual addition that has none yet.

    An identity skip shares the pair of the convolution that it passes. Where the skip is a convolution itself, it is
    the input with fewer convolutions behind it.
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
        quantised = [name for name in branches if producers[name].op_type == "DequantizeLinear"]
        if node.op_type == "Add" and len(branches) == 2 and not quantised and depth[branches[0]] != depth[branches[1]]:
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
