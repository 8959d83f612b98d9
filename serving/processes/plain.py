"""Dataclasses as JSON values and back, by their annotations: settings for another process, without pickles."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def to_plain(value: Any) -> Any:
    """A value of JSON.

    Args:
        value: None, text, a number, a path, a sequence, a mapping of texts, or a dataclass with such fields.

    Raises:
        TypeError: for any other value, such as a function.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [to_plain(each) for each in value]
    raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


def from_plain(kind: Any, value: Any, names: Mapping[str, Any]) -> Any:
    """The value of a type that `to_plain` has made plain.

    Args:
        kind: the type, such as a dataclass or `tuple[Path, ...]`.
        names: types that annotations name, but their modules import for type checkers only.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None:
            return None
        [kind] = [each for each in arguments if each is not NoneType]
        return from_plain(kind, value, names)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(from_plain(each, part, names) for each, part in zip(kinds, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: from_plain(arguments[1], each, names) for name, each in value.items()}
    if kind is Path:
        return Path(value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, localns=dict(names))
        return kind(**{name: from_plain(hints[name], each, names) for name, each in value.items()})  # type: ignore[operator]
    return value
