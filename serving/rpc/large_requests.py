"""Large requests, whose images are not copied out of the bytes that arrived.

protobuf copies a field of bytes when it parses a message, and again each time the field is read, while it holds the
interpreter's lock: for a tenth of a second each at 70 MB, in which no other request is answered. So the images are cut
out of a large message before it is parsed, as views of its bytes.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from serving.pb.inference import open_inference_pb2
from serving.pb.pawserve.v1 import classifier_pb2
from serving.rpc.encoding import GROUP_END, GROUP_START, LENGTH_DELIMITED, fields_of, to_varint

LARGE_BYTES = 256 * 1024
"""Smaller requests are parsed as they are, which takes less than reading their fields here."""

_IMAGES: Mapping[str, tuple[str, ...]] = {
    classifier_pb2.ClassifyRequest.DESCRIPTOR.full_name: ("images", "content"),
    classifier_pb2.ClassifyStreamRequest.DESCRIPTOR.full_name: ("image", "content"),
    open_inference_pb2.ModelInferRequest.DESCRIPTOR.full_name: ("raw_input_contents",),
}
"""Message -> the path of its field with the images."""


class LargeRequest(NamedTuple):
    """A request without its images, and its images."""

    message: Any
    contents: Sequence[memoryview]
    """The image of each entry of the request, in order; empty for an entry without one."""


def separate(request: Any) -> tuple[Any, Sequence[memoryview] | None]:
    """The message of a request, and its images if they are not in it."""
    return (request.message, request.contents) if isinstance(request, LargeRequest) else (request, None)


def cut_images(encoded: bytes, message: Descriptor) -> tuple[bytes, list[memoryview]] | None:
    """Cut the images out of an encoded message.

    Returns:
        The encoded message without them, and the images; None for messages without a field for images, for small ones
        and for malformed ones, which are to be parsed as they are.
    """
    path = _IMAGES.get(message.full_name)
    if path is None or len(encoded) < LARGE_BYTES:
        return None
    try:
        kept, contents = _cut(memoryview(encoded), _fields(message, path))
    except ValueError:
        return None
    return b"".join(kept), contents


def _fields(message: Any, path: Sequence[str]) -> list[FieldDescriptor]:
    fields = []
    for name in path:
        fields.append(message.fields_by_name[name])
        message = fields[-1].message_type
    return fields


def _cut(encoded: memoryview, path: Sequence[FieldDescriptor]) -> tuple[list[bytes | memoryview], list[memoryview]]:
    """The encoded message in parts without the field at the end of the path, and the contents of that field.

    A field that is no repeated one and occurs several times counts as its last occurrence; of messages, protobuf merges
    the occurrences, whose last content counts.

    Raises:
        ValueError: if the message is malformed, or has a group, which no message of ours has.
    """
    field, *inner = path
    kept: list[bytes | memoryview] = []
    contents: list[memoryview] = []
    for number, wire_type, start, body, end in fields_of(encoded):
        if wire_type in (GROUP_START, GROUP_END):
            raise ValueError("fields in a group are not the message's own")
        if number != field.number or wire_type != LENGTH_DELIMITED:
            kept.append(encoded[start:end])
            continue
        found = [encoded[body:end]]
        if inner:
            nested, found = _cut(encoded[body:end], inner)
            kept += [to_varint(number << 3 | LENGTH_DELIMITED), to_varint(sum(map(len, nested))), *nested]
            if not found and field.is_repeated:
                found = [memoryview(b"")]
        contents += found
    return kept, contents if field.is_repeated else contents[-1:]
