"""What every command of `training` and `export` shares: options from a dataclass, errors as one line, exit codes."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from training.interrupted import settle_interrupt
from training.option_help import describe_commands, unbreak_help

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
