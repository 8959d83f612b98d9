"""Parsing of requests.

gRPC itself answers UNKNOWN to bytes that are not a message of the method and writes a stack trace to the log, which any
client could fill.

Messages are also rejected that would take far more memory than bytes. Two bytes can be an empty entry of a repeated
field, which takes a hundred bytes in memory; each byte of a packed field can be a number, which takes eight. A request
of 32 MiB could take gigabytes before its entries can be counted.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from serving.api.errors import ApiError, Code, to_api_error
from serving.rpc.handlers import Handler
from serving.system.memory import can_allocate

MOST_FIELDS = 50_000
"""More than the largest legitimate request has, which holds 10,000 labels."""
PACKED_BYTES_PER_FIELD = 100
"""Bytes of packed numbers that count as one field; the largest legitimate request has a million numbers of 2 bytes."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_too_many_fields(content: bytes, message: Descriptor) -> bool:
    """Whether an encoded message has more fields than MOST_FIELDS, or more than 5 MB of packed numbers.

    Counts the fields of the message and of the messages in it that have repeated fields. The result for bytes that are
    no message is arbitrary, since parsing them fails later.
    """
    if len(content) <= 2 * MOST_FIELDS:  # a field has at least two bytes
        return False
    return _fields_left(content, 0, len(content), message, MOST_FIELDS) < 0


def _fields_left(content: bytes, at: int, end: int, message: Descriptor, left: int) -> int:
    """Subtract the fields of the message in content[at:end] from `left`; negative if there are too many."""
    nested, packed = _nested_with_repeated_fields(message), _packed_fields(message)
    while at < end and left >= 0:
        left -= 1
        tag, at = _read_varint(content, at, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, at = _read_varint(content, at, end)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == _BYTES:
            length, at = _read_varint(content, at, end)
            if number in nested:
                left = _fields_left(content, at, min(end, at + length), nested[number], left)
            elif number in packed:
                left -= min(end - at, length) // PACKED_BYTES_PER_FIELD
            at += length
    return left


def _read_varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at this position, and the position after it."""
    value = shift = 0
    while at < end:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            break
        shift += 7
    return value, at


@cache
def _nested_with_repeated_fields(message: Descriptor) -> Mapping[int, Descriptor]:
    """Field number -> message type, for the fields whose messages have repeated fields."""
    return {
        field.number: field.message_type
        for field in message.fields
        if field.message_type and any(each.is_repeated for each in field.message_type.fields)
    }


@cache
def _packed_fields(message: Descriptor) -> frozenset[int]:
    """The numbers of the repeated fields of numbers, which are encoded as one run of bytes."""
    not_packed = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    return frozenset(field.number for field in message.fields if field.is_repeated and field.type not in not_packed)


def make_parser(handler: Handler) -> Callable[[bytes], Any]:
    """The function that parses the requests of a handler. It raises ApiError for bytes that are no such message."""
    message_type: Any = getattr(handler.request_deserializer, "__self__", None)  # the class whose FromString it is
    descriptor = getattr(message_type, "DESCRIPTOR", None)

    def parse(content: bytes) -> Any:
        if descriptor and has_too_many_fields(content, descriptor):
            message = (
                f"the {len(content):,} bytes have more than {MOST_FIELDS:,} fields, or too many packed numbers; "
                "send several smaller requests, and pixels as raw_input_contents"
            )
            raise ApiError(Code.INVALID_ARGUMENT, "MESSAGE_INVALID", message)
        try:
            return handler.request_deserializer(content)
        except DecodeError as error:
            if not can_allocate(len(content)):
                raise to_api_error(MemoryError(f"a message of {len(content):,} bytes")) from error
            message = f"the {len(content):,} bytes are not a message of this method; use the server's .proto files"
            raise ApiError(Code.INVALID_ARGUMENT, "MESSAGE_INVALID", message) from None

    return parse
