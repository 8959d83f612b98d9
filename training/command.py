"""What every command of `training` and `export` shares: options from a dataclass, errors as one line, exit codes.

The dataclasses of a command's options in; help that reads well at any width out.

tyro takes help from the docstrings below fields, and keeps their line breaks where the next line is indented, as it is
in every class. An option that is not set shows as `{None}|PATH … (default: None)`; the types here show it as PATH.

Ctrl-C in; the exit code that shells know it by, whatever Python was doing, out.
"""

import dataclasses
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

import docstring_parser
import tyro

DONE, FAILED, WRONG_USE = 0, 1, 2


class UsageError(ValueError):
    """Options that cannot be used together, or are out of range: exit code 2."""


@dataclass(frozen=True)
class Command:
    """A subcommand: its options, and what to do with them."""

    options: Any
    """A dataclass; its docstring and those of its fields become the help."""
    main: Callable[[Any], None]
    default: Callable[[Sequence[str]], Any] = lambda _: tyro.MISSING_NONPROP
    """From the arguments, an instance that holds the defaults."""
    interrupted: str = "nothing was written"
    """What Ctrl-C leaves, and how to go on, where the command's own exception does not say it."""


def run_command(program: str, about: str, commands: Mapping[str, Command], arguments: Sequence[str]) -> int:
    """Run `program NAME OPTIONS…` and return its exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND [OPTIONS]\n\n{about}\n\ncommands (each takes --help):")
        lines = [(name, command.options.__doc__.splitlines()[0]) for name, command in commands.items()]
        print(describe_commands(lines, shutil.get_terminal_size().columns))
        return DONE if arguments else WRONG_USE
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        print(f"{program}: there is no command {name!r}; there are {', '.join(commands)}", file=sys.stderr)
        return WRONG_USE
    command = commands[name]
    if "-h" in rest or "--help" in rest:
        unbreak_help(command.options)
    try:
        try:
            options = tyro.cli(
                command.options,
                prog=f"{program} {name}",
                args=rest,
                default=command.default(rest),
            )
        except ValueError as error:
            raise UsageError(error) from error
        command.main(options)
    except UsageError as error:
        return _fail(program, name, error, WRONG_USE)
    except KeyboardInterrupt as error:
        code = settle_interrupt()
        return _fail(program, name, f"interrupted; {_notes(error) or command.interrupted}", code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(program, name, f"{error.strerror or error}{where}\n{_notes(error)}", FAILED)
    except (ValueError, RuntimeError) as error:
        return _fail(program, name, f"{error}\n{_notes(error)}", FAILED)
    return DONE


def _notes(error: BaseException) -> str:
    """What was added to an exception on its way: what is kept of the work that it ended."""
    return "\n".join(getattr(error, "__notes__", []))


def _fail(program: str, name: str, message: object, code: int) -> int:
    print(f"{program} {name}: {message}".rstrip(), file=sys.stderr)
    return code


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


INTERRUPTED = 130


def settle_interrupt() -> int:
    """From here on the process ends with this exit code; a further Ctrl-C ends it at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    # If it struck within an exec of source text, as dataclasses and torch's compilers use, Python would still end by
    # the signal: its note of that is only taken back where the next such exec begins.
    exec("")
    return INTERRUPTED
