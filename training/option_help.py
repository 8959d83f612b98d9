"""The dataclasses of a command's options in; help that reads well at any width out.

tyro takes help from the docstrings below fields, and keeps their line breaks where the next line is indented, as it is
in every class. An option that is not set shows as `{None}|PATH … (default: None)`; the types here show it as PATH.
"""

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

import docstring_parser
import tyro

MaybePath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
MaybeText = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
MaybeInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
MaybeFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]


def unbreak_help(options: type) -> None:
    """Give tyro the docstrings of a dataclass's fields, and of those within it, without their line breaks."""
    texts = {text.arg_name: text.description for text in docstring_parser.parse_from_object(options).params}
    kinds = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        if text := texts.get(field.name):
            field.metadata = MappingProxyType({**field.metadata, "help": " ".join(text.split())})
        for inner in _dataclasses_in(kinds[field.name]):
            unbreak_help(inner)


def describe_commands(about: Iterable[tuple[str, str]], width: int) -> str:
    """Lines of (name, what it does), wrapped."""
    return "\n".join(
        textwrap.fill(text, width, initial_indent=f"  {name:<12} ", subsequent_indent=" " * 15) for name, text in about
    )


def _dataclasses_in(kind: Any) -> Iterator[type]:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for argument in get_args(kind):
        yield from _dataclasses_in(argument)
