"""An encoded request in; whether it has far more fields, or numbers, than any request means, out.

Two bytes can be an empty entry of a repeated field, and become a hundred bytes in memory; each byte of a packed field
can be a number, and become eight. So a request of 32 MiB becomes gigabytes, before anybody can count its entries.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MOST_FIELDS = 50_000
"""More than the largest request has, of ten thousand labels."""
PACKED_BYTES_A_FIELD = 100
"""Packed numbers count as fields of so many bytes: the largest request has a million, of two bytes each at most."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_too_many_fields(content: bytes, message: Descriptor) -> bool:
    """Whether a message, with those in it that have repeated fields, has more than MOST_FIELDS, or five megabytes of
    packed numbers. What is no message may be either: whoever reads it finds out."""
    if len(content) <= 2 * MOST_FIELDS:  # no field has fewer bytes than two
        return False
    return _left(content, 0, len(content), message, MOST_FIELDS) < 0


def _left(content: bytes, at: int, end: int, message: Descriptor, left: int) -> int:
    """How many fields may still come, after those of a message that stands there; negative if there were too many."""
    inner, packed = _with_repeated_fields(message), _packed_fields(message)
    while at < end and left >= 0:
        left -= 1
        tag, at = _varint(content, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(content, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            length, at = _varint(content, at, end)
            if tag >> 3 in inner:
                left = _left(content, at, min(end, at + length), inner[tag >> 3], left)
            elif tag >> 3 in packed:
                left -= min(end - at, length) // PACKED_BYTES_A_FIELD
            at += length
    return left


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
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
def _with_repeated_fields(message: Descriptor) -> Mapping[int, Descriptor]:
    """The fields of a message, by number, that hold messages with repeated fields of their own."""
    return {
        field.number: field.message_type
        for field in message.fields
        if field.message_type and any(each.is_repeated for each in field.message_type.fields)
    }


@cache
def _packed_fields(message: Descriptor) -> frozenset[int]:
    """The numbers of the fields that hold many numbers as one run of bytes."""
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)
    return frozenset(field.number for field in message.fields if field.is_repeated and field.type not in texts)
