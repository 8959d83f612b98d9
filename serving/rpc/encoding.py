"""The fields of an encoded protobuf message, without parsing it.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH_DELIMITED, GROUP_START, GROUP_END, FIXED32 = range(6)
"""Wire types."""
_FIXED = {FIXED64: 8, FIXED32: 4}


class EncodedField(NamedTuple):
    """One field: its number and wire type, and the positions of its tag, its value and its end.

    The value of a length-delimited field begins after its length. A group's start and its end are fields of their own,
    without a value.
    """

    number: int
    wire_type: int
    start: int
    value: int
    end: int


def fields_of(encoded: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[EncodedField]:
    """The fields of the message in encoded[start:end].

    Raises:
        ValueError: where the message is malformed, after the fields before that.
    """
    at, stop = start, len(encoded) if end is None else end
    while at < stop:
        start = at
        tag, at = _read_varint(encoded, at, stop)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ValueError("there is no field 0")
        value = after = at
        if wire_type == LENGTH_DELIMITED:
            length, value = _read_varint(encoded, at, stop)
            after = value + length
        elif wire_type == VARINT:
            _, after = _read_varint(encoded, at, stop)
        elif wire_type in _FIXED:
            after = at + _FIXED[wire_type]
        elif wire_type > FIXED32:
            raise ValueError(f"there is no wire type {wire_type}")
        if after > stop:
            raise ValueError("the message ends early")
        yield EncodedField(number, wire_type, start, value, after)
        at = after


def to_varint(number: int) -> bytes:
    """A number as it is encoded, from 0."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(encoded: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at this position, and the position after it; raises ValueError if it does not end."""
    value = shift = 0
    while at < end and shift <= 63:
        byte = encoded[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")
