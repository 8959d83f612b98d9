"""JSON schemas of protobuf messages, by protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/)."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "examples": ["1.5s"]},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}
_INTEGERS_64 = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
_INTEGERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)
_NUMBERS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def schemas_of(*messages: Any) -> dict[str, dict[str, Any]]:
    """Name -> schema, of these messages and all that they hold."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [*messages]
    while waiting:
        message = waiting.pop()
        if message.name in found or message.full_name in _WELL_KNOWN:
            continue
        properties = {field.json_name: _of_field(field) for field in message.fields}
        found[message.name] = {"type": "object", "properties": properties}
        waiting += [field.message_type for field in message.fields if field.message_type]
    return dict(sorted(found.items()))


def reference(message: Any) -> dict[str, Any]:
    """A reference to the schema of a message."""
    return _WELL_KNOWN.get(message.full_name) or {"$ref": f"#/components/schemas/{message.name}"}


def _of_field(field: Any) -> dict[str, Any]:
    one = _of_one(field)
    return {"type": "array", "items": one} if field.is_repeated else one


def _of_one(field: Any) -> dict[str, Any]:
    if field.message_type:
        return reference(field.message_type)
    if field.enum_type:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type in _INTEGERS_64:
        return {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
    if field.type in _INTEGERS:
        return {"type": "integer", "format": "int32"}
    if field.type in _NUMBERS:
        return {"type": "number"}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    return {"type": "string", **({"contentEncoding": "base64"} if field.type == FieldDescriptor.TYPE_BYTES else {})}
