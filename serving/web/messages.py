"""Protobuf messages as JSON, and JSON as protobuf messages."""

import base64
import json
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from starlette.responses import Response

from serving.api.errors import invalid

M = TypeVar("M", bound=Message)
_SINGLE = struct.Struct("f")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escaped half of a pair, or a whole one."""
MAX_ELEMENTS = 50_000
"""Most elements of JSON in a request: more than the largest legitimate one has, which holds 10,000 labels."""


def to_json(message: Message) -> bytes:
    """Protobuf's JSON (https://protobuf.dev/programming-guides/json/), with the fields that have no value.

    The same as `MessageToJson`, of which the conversion of one prediction takes longer than all other work on it.
    """
    return json.dumps(_to_dict(message), ensure_ascii=False, separators=(",", ":")).encode()


def _to_dict(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key, convert, repeated, presence in _fields(message.DESCRIPTOR):
        if repeated:
            found[key] = [*map(convert, getattr(message, name))]
        elif not presence or message.HasField(name):
            found[key] = convert(getattr(message, name))
    return found


@cache
def _fields(message: Any) -> list[tuple[str, str, Callable[[Any], Any], bool, bool]]:
    """Name, JSON name, conversion, whether it is repeated and whether it may be absent, of each field."""
    if any(field.message_type and field.message_type.GetOptions().map_entry for field in message.fields):
        raise TypeError(f"{message.full_name} has a map")
    return [
        (field.name, field.json_name, _conversion(field), field.is_repeated, field.has_presence)
        for field in message.fields
    ]


def _conversion(field: Any) -> Callable[[Any], Any]:
    if field.message_type:
        return _by_library if field.message_type.full_name.startswith("google.") else _to_dict
    if field.enum_type:
        return lambda number: field.enum_type.values_by_number[number].name
    conversions: dict[int, Callable[[Any], Any]] = {
        FieldDescriptor.TYPE_FLOAT: shortest_float,
        FieldDescriptor.TYPE_INT64: str,
        FieldDescriptor.TYPE_UINT64: str,
        FieldDescriptor.TYPE_BYTES: lambda content: base64.b64encode(content).decode(),
    }
    return conversions.get(field.type, _as_it_is)


def _by_library(message: Message) -> Any:
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def _as_it_is(value: Any) -> Any:
    return value


def shortest_float(value: float) -> float:
    """The number with the fewest digits that is the same in 32 bits."""
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if _SINGLE.unpack(_SINGLE.pack(short))[0] == value:
            return short
    return float(f"{value:.9g}")


def json_response(content: bytes) -> Response:
    """A response of JSON."""
    return Response(content, media_type="application/json")


def parse_json(body: bytes, most_elements: int = MAX_ELEMENTS) -> Any:
    """Parse JSON, unless it would take far more memory than bytes.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    if (count := body.count(b",") + 1) > most_elements:
        message = f"the JSON has {count:,} elements; send several smaller requests of at most {most_elements:,}"
        raise invalid("MESSAGE_INVALID", message, "")
    try:
        content = json.loads(body.decode("utf-8-sig"))
        if _SURROGATE.search(body):
            json.dumps(content, ensure_ascii=False).encode()  # fails for half of a pair, which is no text
        return content
    except (ValueError, RecursionError) as error:
        raise invalid("MESSAGE_INVALID", f"the body is not JSON: {error or 'it is nested too deeply'}", "") from None


def parse_message(body: bytes, message: M) -> M:
    """Fill a message from its JSON.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    content = parse_json(body)
    if not isinstance(content, dict):
        raise invalid("MESSAGE_INVALID", f"the body is not a JSON object, as {message.DESCRIPTOR.name} needs", "")
    try:
        return ParseDict(content, message)
    except ParseError as error:
        raise invalid("MESSAGE_INVALID", f"the body is not a {message.DESCRIPTOR.name}: {error}", "") from None


def to_plain(message: Message) -> dict[str, Any]:
    """A message as the Open Inference Protocol has it over REST: names as in the .proto file, integers as numbers."""
    return {field.name: _plain(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_plain_one(field, each) for each in value]
    return _plain_one(field, value)


def _plain_one(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_plain(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    return value
