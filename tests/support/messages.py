"""Hypothesis strategies for protobuf messages: arbitrary fields and values, and often likely values."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def _integers(bits: int, *, signed: bool) -> SearchStrategy[int]:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(max(least, -1), 5), st.sampled_from([least, most]), st.integers(least, most))


_SCALARS: dict[int, SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _integers(32, signed=True),
    FieldDescriptor.CPPTYPE_UINT32: _integers(32, signed=False),
    FieldDescriptor.CPPTYPE_INT64: _integers(64, signed=True),
    FieldDescriptor.CPPTYPE_UINT64: _integers(64, signed=False),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
_TEXTS = st.one_of(
    st.text(max_size=20), st.text("\0\n'\"%/\u202e", max_size=5), st.sampled_from(["x" * 5000, "é" * 200])
)
_BYTES = st.binary(max_size=200)


def any_message(kind: type[Message], likely: Mapping[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    """Messages of one kind.

    Args:
        likely: field name -> values that are drawn beside arbitrary ones, wherever the field is in the message;
            whole messages as dictionaries of their fields.
    """
    return _fields(kind.DESCRIPTOR, likely).map(lambda fields: kind(**fields))


def _fields(descriptor: Descriptor, likely: Mapping[str, SearchStrategy[Any]]) -> SearchStrategy[dict[str, Any]]:
    optional = {}
    for field in descriptor.fields:
        if (entry := field.message_type) is not None and entry.GetOptions().map_entry:
            value = _value(entry.fields_by_name["value"], likely)
            keys = st.one_of(likely["key"], _TEXTS) if "key" in likely else _TEXTS
            optional[field.name] = st.dictionaries(keys, value, max_size=3)
        elif field.is_repeated:
            optional[field.name] = st.lists(_value(field, likely), max_size=5)
        else:
            optional[field.name] = _value(field, likely)
    return st.fixed_dictionaries({}, optional=optional)


def _value(field: FieldDescriptor, likely: Mapping[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    if field.message_type is not None:
        kind = GetMessageClass(field.message_type)
        value = _fields(field.message_type, likely).map(lambda fields: kind(**fields))
    elif field.type == FieldDescriptor.TYPE_STRING:
        value = _TEXTS
    elif field.type == FieldDescriptor.TYPE_BYTES:
        value = _BYTES
    else:
        value = _SCALARS[field.cpp_type]
    return st.one_of(likely[field.name], likely[field.name], value) if field.name in likely else value
