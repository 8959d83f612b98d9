"""INT8 for TensorRT with float16 between its layers: a Q/DQ graph whose body computes in half instead of in float32.

TensorRT networks are strongly typed: a convolution with INT8 inputs writes its output in the type of its
DequantizeLinear nodes, so float32 there doubles the memory traffic. Preprocessing of the image, pooling and the head
stay float32, as in fp16 graphs: they cost little time.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Set

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MAX_VALUE = 32_752.0
"""Half of the largest float16: larger activations may overflow on other images than those of the calibration."""
_FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that ONNX allows in float32 only: regions and scales."""


def pooling_of(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that pool feature maps and concatenate the results, before the head."""
    producers = {output: node for node in graph.node for output in node.output}
    names = set()
    for node in graph.node:
        sources = [producers[name] for name in node.input if name in producers]
        if node.op_type == "Concat" and sources and all(source.op_type.startswith("Reduce") for source in sources):
            names |= {node.name} | {source.name for source in sources}
    return names


def reached(
    graph: onnx.GraphProto, tensors: Iterable[str], *, forward: bool = True, stops: Collection[str] = ()
) -> set[str]:
    """Names of the nodes that can be reached from tensors without crossing a node of a type in `stops`."""
    known, nodes = set(tensors), set()
    for node in graph.node if forward else reversed(graph.node):
        near, far = (node.input, node.output) if forward else (node.output, node.input)
        if node.op_type not in stops and known.intersection(near):
            nodes.add(node.name)
            known.update(far)
    return nodes


def body_of(graph: onnx.GraphProto, before: Set[str]) -> set[str]:
    """Names of the nodes between the preprocessing of the image and the pooling.

    Args:
        before: names of the nodes that preprocess the image.
    """
    pooling = pooling_of(graph)
    pooled = [output for node in graph.node if node.name in pooling for output in node.output]
    head = pooling | reached(graph, pooled)
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node.name)
    body: set[str] = set()
    for node in reversed(graph.node):
        followers = [reader for name in node.output for reader in readers[name]]
        # what has only constants before it, such as the weights' DequantizeLinear, belongs to its reader
        if node.name not in head | before and (
            not followers or body.intersection(followers) or node.op_type != "DequantizeLinear"
        ):
            body.add(node.name)
    return body


def to_half_body(graph: onnx.GraphProto, body: Set[str]) -> None:
    """Have nodes compute in float16, in place; casts are inserted where a value enters or leaves them.

    Args:
        graph: float32, with inferred types; its `value_info` is removed.
        body: names of the nodes.
    """
    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    in_half = {
        name for node in graph.node if node.name in body for name in node.output if kinds.get(name) == TensorProto.FLOAT
    }
    made: set[str] = set()
    nodes: list[onnx.NodeProto] = []

    def constant(name: str) -> str:
        """The float16 copy of an initializer."""
        half = f"{name}.half"
        if half not in made:
            made.add(half)
            value = numpy_helper.to_array(floats[name])
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), half))
        return half

    def cast(name: str, kind: str) -> str:
        result = f"{name}.{kind}"
        if result not in made:
            made.add(result)
            to = TensorProto.FLOAT16 if kind == "half" else TensorProto.FLOAT
            nodes.append(helper.make_node("Cast", [name], [result], f"{result}.cast", to=to))
        return result

    for node in graph.node:
        for at, name in enumerate(node.input):
            if node.name in body and at not in _FLOAT32_INPUTS.get(node.op_type, ()):
                if name in floats:
                    node.input[at] = constant(name)
                elif kinds.get(name) == TensorProto.FLOAT and name not in in_half:
                    node.input[at] = cast(name, "half")
            elif name in in_half:
                node.input[at] = cast(name, "float")
        if node.name in body:
            _convert_attributes(node)
        nodes.append(node)
    ends = {value.name: f"{value.name}.half" for value in graph.output if value.name in in_half}
    for node in nodes:  # the graph's own outputs stay float32
        node.input[:] = [ends.get(name, name) for name in node.input]
        node.output[:] = [ends.get(name, name) for name in node.output]
    for name, half in ends.items():
        nodes.append(helper.make_node("Cast", [half], [name], f"{name}.cast", to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]  # it states the former types


def _convert_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))


def store_int8_weights(graph: onnx.GraphProto) -> None:
    """Replace each float32 weight and its QuantizeLinear by the INT8 weight, a quarter of the size, in place.

    Scales are rounded up to float16 first, so that the same weights come out in both types.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = {}
    for node in list(graph.node):
        if node.op_type != "QuantizeLinear" or node.input[0] not in tensors:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        weight, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
        scale = _round_up(scale)
        shape = [1] * weight.ndim
        if scale.ndim:
            shape[axis] = -1
        int8 = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        tensors[node.input[0]].CopyFrom(numpy_helper.from_array(int8, node.input[0]))
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(scale, node.input[1]))
        names[node.output[0]] = node.input[0]
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del graph.value_info[:]  # it states the former types


def _round_up(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest float16 that is not below each scale, as float32."""
    rounded = np.asarray(scale, np.float32).astype(np.float16)
    low = rounded.astype(np.float32) < scale
    rounded = np.where(low, np.nextafter(rounded, np.float16(np.inf)), rounded)
    result: NDArray[np.float32] = rounded.astype(np.float32)
    return result
