"""What the commands of `training` and `export` share: options from a dataclass, errors as one line, exit codes.

tyro parses the options and writes the help from the docstrings below the dataclass's fields.
"""

import dataclasses
import importlib
import os
import shutil
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from serving.engine.onnx_package import explain
from serving.system.output import accept_any_text, describe_version, discard_output, flushed_output

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """A subcommand: its options and its function."""

    options: Any
    """A dataclass. Its docstring and those of its fields become the help. Its method `inputs`, if it has one, yields
    the options that name what is read, with their paths."""
    main: str
    """The function, which takes the options: `module:function`, imported when the command runs."""
    default: Callable[[Sequence[str]], Any] = lambda _: tyro.MISSING_NONPROP
    """Makes an instance that holds the defaults from the arguments."""
    interrupted: str = "nothing was written"
    """What Ctrl-C leaves and how to continue, unless a note of the exception says so."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Options by former names, which are still understood and not shown."""


def run_command(
    program: str, about: str, commands: Mapping[str, Command], arguments: Sequence[str], called_as: str | None = None
) -> int:
    """Run `program NAME OPTIONS…` and return its exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    Args:
        called_as: what help and messages call the command; None for `program NAME`.
    """
    accept_any_text()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # a damaged image is decoded or left out, and then reported
    command = commands.get(arguments[0]) if arguments else None
    shown = called_as or (f"{program} {arguments[0]}" if command else program)
    try:
        with flushed_output():
            if command is None:
                return _run_without_command(program, about, commands, arguments)
            _run_chosen(command, shown, arguments[1:])
    except _WrongUse as error:
        return _fail(shown, error, WRONG_USE)
    except KeyboardInterrupt as error:
        code = settle_interrupt()
        return _fail(shown, f"interrupted; {_notes(error) or (command.interrupted if command else '')}", code)
    except OSError as error:
        if error.filename is None:  # standard output, perhaps
            discard_output()
        where = f" ({error.filename})" if error.filename else ""
        return _fail(shown, f"{error.strerror or error}{where}\n{_notes(error)}", FAILED)
    except ImportError as error:
        return _fail(shown, explain(error), FAILED)
    except (ValueError, RuntimeError) as error:
        return _fail(shown, f"{error}\n{_notes(error)}", FAILED)
    return DONE


class _WrongUse(Exception):
    """The options cannot be used."""


def _run_without_command(program: str, about: str, commands: Mapping[str, Command], arguments: Sequence[str]) -> int:
    """Print the help or the version, or that there is no such command; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND [OPTIONS]\n\n{about}\n\ncommands (each takes --help):")
        width = shutil.get_terminal_size().columns
        for name, command in commands.items():
            text = command.options.__doc__.splitlines()[0]
            print(textwrap.fill(text, width, initial_indent=f"  {name:<12} ", subsequent_indent=" " * 15))
        print("\n  --version    Print the version.")
        return DONE if arguments else WRONG_USE
    if arguments[0] == "--version":
        print(describe_version())
        return DONE
    return _fail(program, f"there is no command {arguments[0]!r}; there are {', '.join(commands)}", WRONG_USE)


def _run_chosen(command: Command, shown: str, arguments: Sequence[str]) -> None:
    """Parse the options of a command and run it; raises _WrongUse, or what the command raises."""
    words = (word.partition("=") for word in arguments)
    arguments = [command.renamed.get(name, name) + equals + value for name, equals, value in words]
    try:
        default = command.default(arguments)
        options = tyro.cli(command.options, prog=shown, args=arguments, default=default, registry=_registry)
    except ValueError as error:
        raise _WrongUse(_as_typed(str(error), arguments)) from error
    for name, path in getattr(options, "inputs", tuple)():  # before the imports, which may take ten seconds
        if not path.exists():
            raise ValueError(f"{name} {path} does not exist")
    module, _, function = command.main.partition(":")
    getattr(importlib.import_module(module), function)(options)


def _as_typed(message: str, arguments: Sequence[str]) -> str:
    """A message on a setting that begins with its name: with the option instead, if the user typed that."""
    name, space, rest = message.partition(" ")
    option = f"--{name.replace('_', '-')}"
    typed = {word.partition("=")[0].replace("_", "-") for word in arguments}
    return f"{option if option in typed else name}{space}{rest}"


def settle_interrupt() -> int:
    """Make the process end with the returned exit code from here on; a further Ctrl-C ends it at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    # If Ctrl-C struck within an exec of source text, as dataclasses and torch's compilers use, Python would still end
    # by the signal: it clears its record of the interrupt only where the next such exec begins.
    exec("")
    return INTERRUPTED


def _notes(error: BaseException) -> str:
    """The notes of an exception: what is kept of the work that it ended."""
    return "\n".join(getattr(error, "__notes__", []))


def _fail(shown: str, message: object, code: int) -> int:
    print(f"{shown}: {message}".rstrip(), file=sys.stderr)
    return code


_registry = ConstructorRegistry()
_SIZES = PrimitiveConstructorSpec(
    nargs=1,
    metavar="SIZE[,SIZE]",
    instance_from_str=lambda words: tuple(_read(int, size) for size in words[0].split(",")),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda sizes: [",".join(map(str, sizes))],
)
_HINT = tyro.conf.arg(help_behavior_hint=lambda label: "" if label in ("", "''") else f"(default: {label})")


@_registry.primitive_rule
def _plain_option(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A path or a number."""
    return _plain(info.type) if info.type in (Path, int, float) else None


def _plain(kind: Any, *, optional: bool = False) -> PrimitiveConstructorSpec[Any]:
    """A path, a number or text; with `optional` the default may be None."""
    kinds = (kind, type(None)) if optional else kind
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: _read(kind, words[0]),
        is_instance=lambda value: isinstance(value, kinds),
        str_from_instance=lambda value: [str(value)],
    )


def _read(kind: Any, word: str) -> Any:
    """An option's value; raises ValueError for what is no number.

    `~` of a path is expanded where the shell has not done it, as in `--data=~/images`.
    """
    try:
        return Path(word).expanduser() if kind is Path else kind(word)
    except ValueError:
        raise ValueError(f"{word!r} is no {'whole number' if kind is int else 'number'}") from None


@_registry.struct_rule
def _dataclass_options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The options of a dataclass.

    tyro's own rule keeps the line breaks of the docstrings below fields.
    """
    if not dataclasses.is_dataclass(info.type):
        return None
    classes = filter(dataclasses.is_dataclass, info.type.__mro__)
    parsed = [text for each in classes for text in docstring_parser.parse_from_object(each).params]
    texts = {text.arg_name: text.description or "" for text in parsed}
    kinds = get_type_hints(info.type, include_extras=True)
    fields = tuple(
        StructFieldSpec(
            name=field.name,
            type=_option_type(kinds[field.name]),
            default=_default(field, info.default),
            helptext=" ".join(texts.get(field.name, "").split()),
        )
        # settings in a dataclass of their own come after the command's
        for field in sorted(dataclasses.fields(info.type), key=lambda field: _is_nested(kinds[field.name]))
    )
    return StructConstructorSpec(instantiate=info.type, fields=fields)


def _option_type(kind: Any) -> Any:
    """A field's type with how the help shows it.

    tyro would show an option that may be unset as `{None}|PATH … (default: None)`; this shows `PATH`.
    """
    if kind == tuple[int, ...]:
        return Annotated[kind, _SIZES, _HINT]
    if kind in (Path | None, str | None, int | None, float | None):
        return Annotated[kind, _plain(get_args(kind)[0], optional=True), tyro.conf.arg(help_behavior_hint="")]
    return Annotated[kind, _HINT] if kind is str or get_origin(kind) is tuple else kind


def _is_nested(kind: Any) -> bool:
    return dataclasses.is_dataclass(get_args(kind)[0] if get_args(kind) else kind)


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if hasattr(instance, field.name):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()
