"""Protobuf messages as JSON, and JSON as protobuf messages."""

import json
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from starlette.responses import Response

from serving.api.errors import invalid

M = TypeVar("M", bound=Message)
MOST_ELEMENTS = 50_000
"""Most elements of JSON in a request: more than the largest legitimate one has, which holds 10,000 labels."""


def to_json(message: Message) -> bytes:
    """Protobuf's JSON (https://protobuf.dev/programming-guides/json/), with the fields that have no value."""
    return json.dumps(
        MessageToDict(message, always_print_fields_with_no_presence=True), ensure_ascii=False, separators=(",", ":")
    ).encode()


def json_response(content: bytes) -> Response:
    """A response of JSON."""
    return Response(content, media_type="application/json")


def parse_json(body: bytes, most_elements: int = MOST_ELEMENTS) -> Any:
    """Parse JSON, unless it would take far more memory than bytes.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    if (count := body.count(b",") + 1) > most_elements:
        message = f"the JSON has {count:,} elements; send several smaller requests of at most {most_elements:,}"
        raise invalid("MESSAGE_INVALID", message, "")
    try:
        return json.loads(body)
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
