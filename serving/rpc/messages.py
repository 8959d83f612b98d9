"""Parsing of requests.

gRPC itself answers UNKNOWN to bytes that are not a message of the method and writes a stack trace to the log, which any
client could fill.

Messages are also rejected that would take far more memory than bytes. Two bytes can be an empty entry of a repeated
field, which takes a hundred bytes in memory; each byte of a packed field can be a number, which takes eight. A request
of 32 MiB could take gigabytes before its entries can be counted.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from serving.api.errors import ApiError, Code, to_api_error
from serving.rpc.encoding import LENGTH_DELIMITED, fields_of
from serving.rpc.handlers import Handler
from serving.rpc.large_requests import LargeRequest, cut_images
from serving.system.memory import can_allocate

MAX_FIELDS = 50_000
"""More than the largest legitimate request has, which holds 10,000 labels."""
PACKED_BYTES_PER_FIELD = 100
"""Bytes of packed numbers that count as one field; the largest legitimate request has a million numbers of 2 bytes."""


def has_too_many_fields(content: bytes, message: Descriptor) -> bool:
    """Whether an encoded message has more fields than MAX_FIELDS, or more than 5 MB of packed numbers.

    Counts the fields of the message and of the messages in it that have repeated fields. The result for bytes that are
    no message is arbitrary, since parsing them fails later.
    """
    if len(content) <= 2 * MAX_FIELDS:  # a field has at least two bytes
        return False
    return _fields_left(content, 0, len(content), message, MAX_FIELDS) < 0


def _fields_left(content: bytes, start: int, end: int, message: Descriptor, left: int) -> int:
    """Subtract the fields of the message in content[start:end] from `left`; negative if there are too many."""
    nested, packed = _nested_with_repeated_fields(message), _packed_fields(message)
    with suppress(ValueError):  # the message is malformed: what follows is not parsed
        for field in fields_of(content, start, end):
            left -= 1
            if field.wire_type == LENGTH_DELIMITED:
                if field.number in nested:
                    left = _fields_left(content, field.value, field.end, nested[field.number], left)
                elif field.number in packed:
                    left -= (field.end - field.value) // PACKED_BYTES_PER_FIELD
            if left < 0:
                break
    return left


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
    """The function that parses the requests of a handler: to a message, or a `LargeRequest` of one.

    It raises ApiError for bytes that are no such message.
    """
    message_type: Any = getattr(handler.request_deserializer, "__self__", None)  # the class whose FromString it is
    descriptor = getattr(message_type, "DESCRIPTOR", None)

    def parse(content: bytes) -> Any:
        if descriptor and has_too_many_fields(content, descriptor):
            message = (
                f"the {len(content):,} bytes have more than {MAX_FIELDS:,} fields, or too many packed numbers; "
                "send several smaller requests, and pixels as raw_input_contents"
            )
            raise ApiError(Code.INVALID_ARGUMENT, "MESSAGE_INVALID", message)
        try:
            if descriptor and (cut := cut_images(content, descriptor)):
                rest, images = cut
                return LargeRequest(handler.request_deserializer(rest), images)
            return handler.request_deserializer(content)
        except DecodeError as error:
            if not can_allocate(len(content)):
                raise to_api_error(MemoryError(f"a message of {len(content):,} bytes")) from error
            message = f"the {len(content):,} bytes are not a message of this method; use the server's .proto files"
            raise ApiError(Code.INVALID_ARGUMENT, "MESSAGE_INVALID", message) from None

    return parse
