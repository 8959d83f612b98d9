"""The images in the tensors of an Open Inference Protocol request. Every size is checked before it is used."""

import struct
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from serving.api.errors import ApiError, invalid
from serving.image.kinds import supported_format
from serving.models.image_data import ImageData
from serving.pb.inference import open_inference_pb2 as pb

ENCODED, PIXELS = "images", "pixels"
"""The two inputs: a request has exactly one of them."""
INPUTS = {ENCODED: ("BYTES", (-1,)), PIXELS: ("UINT8", (-1, -1, -1, 3))}
"""Datatype and shape; -1 where the client chooses."""
MAX_IMAGES = 64
MAX_TYPED_PIXELS = 1_000_000
"""Most elements of `uint_contents`, which take long to read one by one."""
_LENGTH = struct.Struct("<I")
_SIGNATURE_BYTES = 16
MAX_SHOWN = 100
"""Most characters of a request's text that a message repeats."""


def parse_images(request: pb.ModelInferRequest, raws: Sequence[bytes | memoryview], max_pixels: int) -> list[ImageData]:
    """Read the images of a request.

    Args:
        raws: its `raw_input_contents`.
        max_pixels: most pixels of one image.

    Returns:
        1 to 64 images: encoded, or uint8 `[H, W, 3]`.

    Raises:
        ApiError: INVALID_ARGUMENT, naming the invalid field.
    """
    if len(request.inputs) != 1:
        raise invalid_tensor("inputs", f"there are {len(request.inputs)} inputs; send one, {_choices()}")
    tensor = request.inputs[0]
    if tensor.name not in INPUTS:
        raise invalid_tensor("inputs[0].name", f"there is no input {tensor.name[:MAX_SHOWN]!r}; send {_choices()}")
    datatype, _ = INPUTS[tensor.name]
    if tensor.datatype != datatype:
        given = tensor.datatype[:MAX_SHOWN]
        raise invalid_tensor("inputs[0].datatype", f"{tensor.name} has datatype {given!r}; send {_choices()}")
    # KServe's client repeats the size of the raw contents here
    if unknown := set(tensor.parameters) - {"binary_data_size"}:
        name = min(unknown)[:MAX_SHOWN]
        raise invalid_tensor(
            "inputs[0].parameters", f"parameter {name!r} of an input is not known; shared memory is not supported"
        )
    shape = _check_shape(tensor, max_pixels)
    if raws and tensor.contents.ByteSize():
        raise invalid_tensor(
            "raw_input_contents", "the input is both in raw_input_contents and in contents; send one of them"
        )
    if len(raws) > 1:
        raise invalid_tensor("raw_input_contents", f"there are {len(raws)} raw_input_contents for 1 input; send one")
    if tensor.name == ENCODED:
        return [*(_split(raws[0], shape[0]) if raws else _typed_bytes(tensor, shape[0]))]
    return [*_pixels(raws[0] if raws else None, tensor, shape)]


def _check_shape(tensor: pb.ModelInferRequest.InferInputTensor, max_pixels: int) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    shown = f"{tensor.name} has shape [{', '.join(map(str, shape[:8]))}{', …' * (len(shape) > 8)}]"
    field = "inputs[0].shape"
    if tensor.name == ENCODED:
        if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
            raise invalid_tensor(field, f"{shown}; send [N] or [N, 1]")
    elif len(shape) != 4 or shape[3] != 3 or min(shape[1:3]) < 1:
        raise invalid_tensor(field, f"{shown}; send [N, H, W, 3]")
    elif shape[1] * shape[2] > max_pixels:
        raise invalid("TOO_LARGE", f"{shown}; an image may have at most {max_pixels:,} pixels", field)
    if not 1 <= shape[0] <= MAX_IMAGES:
        message = f"{shown}; N must be 1 to {MAX_IMAGES}"
        raise invalid("COUNT_OUT_OF_RANGE", message, field, most=str(MAX_IMAGES))
    return shape


def _split(raw: bytes | memoryview, count: int) -> Iterator[bytes | memoryview]:
    """The elements of BYTES, each preceded by its length in four bytes, little endian."""
    at = 0
    for index in range(count):
        if len(raw) - at < _LENGTH.size:
            raise _invalid_raw(f"ends at element {index} of {count}: its length, four bytes, is missing")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if length > len(raw) - at:
            if image := supported_format(bytes(raw[at - _LENGTH.size : at + _SIGNATURE_BYTES])):
                raise _invalid_raw(
                    f"has a file in the format {image} in place of the length of element {index}: before each element "
                    "of BYTES, send its length in four bytes, little endian"
                )
            raise _invalid_raw(f"gives element {index} {length:,} bytes, but only {len(raw) - at:,} follow")
        yield raw[at : at + length]
        at += length
    if at != len(raw):
        raise _invalid_raw(f"has {len(raw) - at:,} bytes after its {count} elements")


def _typed_bytes(tensor: pb.ModelInferRequest.InferInputTensor, count: int) -> list[bytes]:
    _check_contents(tensor, "bytes_contents")
    elements = tensor.contents.bytes_contents
    if len(elements) != count:
        field = "inputs[0].contents.bytes_contents"
        raise invalid_tensor(field, f"it has {len(elements):,} elements; the shape needs {count:,}")
    return list(elements)


def _pixels(
    raw: bytes | memoryview | None, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    count = prod(shape)
    if raw is not None:
        if len(raw) != count:
            image = supported_format(bytes(raw[:_SIGNATURE_BYTES]))
            hint = f". It begins as a file in the format {image}: send that as {ENCODED}" if image else ""
            raise _invalid_raw(f"has {len(raw):,} bytes; the shape needs {count:,}{hint}")
        return np.frombuffer(raw, np.uint8).reshape(shape)
    _check_contents(tensor, "uint_contents")
    elements, field = tensor.contents.uint_contents, "inputs[0].contents.uint_contents"
    if len(elements) != count:
        raise invalid_tensor(field, f"it has {len(elements):,} elements; the shape needs {count:,}")
    if count > MAX_TYPED_PIXELS:
        raise invalid_tensor(
            field, f"it has {count:,} elements; send more than {MAX_TYPED_PIXELS:,} as raw_input_contents"
        )
    pixels = np.fromiter(elements, np.uint32, count)
    if pixels.max() > 255:
        raise invalid_tensor(field, f"an element is {pixels.max():,}; UINT8 allows 0 to 255")
    return pixels.astype(np.uint8).reshape(shape)


def _check_contents(tensor: pb.ModelInferRequest.InferInputTensor, expected: str) -> None:
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != expected]
    if others:
        raise invalid_tensor(f"inputs[0].contents.{others[0]}", f"{tensor.name} is {tensor.datatype}: send {expected}")


def _choices() -> str:
    return f"{ENCODED!r}, BYTES [N], encoded images, or {PIXELS!r}, UINT8 [N, H, W, 3], RGB"


def invalid_tensor(field: str, message: str) -> ApiError:
    """INVALID_ARGUMENT for one field of a tensor."""
    return invalid("TENSOR_INVALID", message, field)


def _invalid_raw(message: str) -> ApiError:
    return invalid_tensor("raw_input_contents", f"raw_input_contents[0] {message}")
