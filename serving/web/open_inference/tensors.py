"""Requests and responses of `infer` over REST: JSON, and tensors in Triton's binary data extension.

The protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Binary data: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from serving.api.errors import ApiError, invalid
from serving.api.open_inference.inputs import MAX_IMAGES, MAX_SHOWN, MAX_TYPED_PIXELS, invalid_tensor
from serving.pb.inference import open_inference_pb2 as pb
from serving.web.messages import parse_json

MAX_ELEMENTS = MAX_TYPED_PIXELS + 10_000
"""Most elements of the JSON of a request."""
_FIELDS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "INT32": "int_contents"}
_EXPECTED: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
_MAX_INT64 = 2**63 - 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request, as a message, and what only REST has."""

    message: pb.ModelInferRequest
    raws: list[bytes | memoryview]
    """Its `raw_input_contents`, which are not in the message: copying them would take long."""
    binary: frozenset[str] | None
    """Names of the outputs in binary form; None for all outputs."""


def parse_request(body: bytes, json_bytes: str | None) -> InferRequest:
    """Parse the body of a request.

    Args:
        body: JSON, followed by binary tensors if `json_bytes` is given.
        json_bytes: the header Inference-Header-Content-Length; None if it is missing.

    Raises:
        ApiError: INVALID_ARGUMENT, naming the invalid field.
    """
    length = len(body)
    if json_bytes is not None:
        if not (json_bytes.isascii() and json_bytes.isdigit() and int(json_bytes) <= len(body)):
            given = f"Inference-Header-Content-Length is {json_bytes[:MAX_SHOWN]!r}"
            raise invalid("MESSAGE_INVALID", f"{given}; the body has {len(body):,} bytes", "")
        length = int(json_bytes)
    content = typed(parse_json(body[:length], MAX_ELEMENTS), dict, "")
    parameters = _member(content, "parameters", dict)
    all_binary = _pop_bool(parameters, "binary_data_output", "parameters")
    message = pb.ModelInferRequest(id=_member(content, "id", str))
    _set_parameters(message.parameters, parameters, "parameters")
    at, raws = length, []
    for index, each in enumerate(_member(content, "inputs", list)):
        field = f"inputs[{index}]"
        raw, size = _add_input(message, typed(each, dict, field), field, memoryview(body)[at:])
        at += size
        raws += raw
    if at != len(body):
        raise invalid_tensor("inputs", f"{len(body) - at:,} bytes follow the binary data that the inputs name")
    binary = set()
    outputs = _member(content, "outputs", list)
    for index, each in enumerate(outputs):
        field = f"outputs[{index}]"
        output = typed(each, dict, field)
        own = _member(output, "parameters", dict, field)
        tensor = message.outputs.add(name=_member(output, "name", str, field))
        if _pop_bool(own, "binary_data", f"{field}.parameters", default=all_binary):
            binary.add(tensor.name)
        _set_parameters(tensor.parameters, own, f"{field}.parameters")
    return InferRequest(message, raws, None if all_binary and not outputs else frozenset(binary))


def write_response(response: pb.ModelInferResponse, binary: frozenset[str] | None) -> tuple[bytes, int | None]:
    """The body of a response.

    Args:
        response: with typed contents.
        binary: see InferRequest.

    Returns:
        The body, and the bytes of its JSON if binary tensors follow it.
    """
    outputs: list[dict[str, Any]] = []
    raws: list[bytes] = []
    for tensor in response.outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        values = getattr(tensor.contents, _FIELDS[tensor.datatype])
        if binary is None or tensor.name in binary:
            raws.append(to_binary(tensor.datatype, values))
            output["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            output["data"] = [each.decode() for each in values] if tensor.datatype == "BYTES" else list(values)
        outputs.append(output)
    content: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        content["id"] = response.id
    text = json.dumps({**content, "outputs": outputs}, ensure_ascii=False, separators=(",", ":")).encode()
    return (b"".join([text, *raws]), len(text)) if raws else (text, None)


def to_binary(datatype: str, values: Any) -> bytes:
    """A tensor in binary form, little endian; each element of BYTES follows its length in four bytes."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return np.array(values, "<f4" if datatype == "FP32" else "<i4").tobytes()


def _add_input(
    message: pb.ModelInferRequest, content: dict[str, Any], field: str, binary: memoryview
) -> tuple[list[bytes | memoryview], int]:
    """Add one input, whose binary data `binary` begins with if it has any.

    Returns:
        Its raw contents, if it has no typed ones, and how many bytes of `binary` they are.
    """
    parameters = _member(content, "parameters", dict, field)
    size = parameters.pop("binary_data_size", None)
    encoding = parameters.pop("content_type", None)
    tensor = message.inputs.add(
        name=_member(content, "name", str, field),
        datatype=_member(content, "datatype", str, field),
        shape=[_int(each, f"{field}.shape") for each in _member(content, "shape", list, field)],
    )
    _set_parameters(tensor.parameters, parameters, f"{field}.parameters")
    if size is not None:
        if "data" in content:
            raise invalid_tensor(field, "the input has both data and binary_data_size; send one of them")
        if not 0 <= _int(size, f"{field}.parameters") <= len(binary):
            problem = f"binary_data_size is {size:,}, and {len(binary):,} bytes follow"
            raise invalid_tensor(f"{field}.parameters", f"{problem}; is Inference-Header-Content-Length missing?")
        return [binary[:size]], int(size)
    if "data" not in content:
        raise invalid_tensor(f"{field}.data", "the input has no data")
    if tensor.datatype == "BYTES":
        elements = _flat(content["data"], f"{field}.data")
        tensor.contents.bytes_contents.extend(_bytes(each, encoding, f"{field}.data") for each in elements)
        return [], 0
    return [_uint8(content["data"], f"{field}.data")], 0


def _flat(data: Any, field: str) -> Iterator[Any]:
    """The elements of nested lists, at most MAX_IMAGES + 1 of them: more fail later, by their number."""
    for each in typed(data, list, field)[: MAX_IMAGES + 1]:
        if isinstance(each, list):
            yield from each[: MAX_IMAGES + 1]
        else:
            yield each


def _bytes(element: Any, encoding: Any, field: str) -> bytes:
    text = typed(element, str, field)
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_tensor(field, f"an element is not base64: {error}") from None


def _uint8(data: Any, field: str) -> bytes:
    # not by NumPy: if one element is a long text, each takes as much memory in its arrays
    values = typed(data, list, field)
    while any(isinstance(each, list) for each in values):
        if len({len(each) if isinstance(each, list) else -1 for each in values}) > 1:
            raise invalid_tensor(field, "its lists have different lengths")
        values = list(chain.from_iterable(values))
    if len(values) > MAX_TYPED_PIXELS:
        message = f"it has {len(values):,} elements; send more than {MAX_TYPED_PIXELS:,} as binary data"
        raise invalid_tensor(field, message)
    try:
        if set(map(type, values)) <= {int}:  # and not bool
            return bytes(values)
    except (ValueError, OverflowError):
        pass
    raise invalid_tensor(field, "an element is no whole number from 0 to 255, as UINT8 needs")


def _set_parameters(target: Any, parameters: dict[str, Any], field: str) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = _int(value, field)
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        else:
            raise invalid("PARAMETER_INVALID", f"parameter {name[:MAX_SHOWN]!r} is no boolean, number or text", field)


def _pop_bool(parameters: dict[str, Any], name: str, field: str, *, default: bool = False) -> bool:
    value = parameters.pop(name, default)
    if not isinstance(value, bool):
        raise invalid("PARAMETER_INVALID", f"parameter {name} must be true or false", field)
    return value


def _member(content: dict[str, Any], name: str, kind: type[T], within: str = "") -> T:
    """A member of the object `within`; an empty one if it is missing."""
    return typed(content.get(name, kind()), kind, f"{within}.{name}" if within else name)


def typed(value: Any, kind: type[T], field: str) -> T:
    """A value of JSON; raises ApiError if it is of another kind: an object, a list or text."""
    if not isinstance(value, kind):
        raise _wrong(field, _EXPECTED[kind])
    return value


def _int(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_MAX_INT64 <= value <= _MAX_INT64:
        raise _wrong(field, "a whole number of 64 bits")
    return value


def _wrong(field: str, expected: str) -> ApiError:
    return invalid("MESSAGE_INVALID", f"{field or 'the body'} must be {expected}", field)
