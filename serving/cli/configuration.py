"""Values of a command's options from a TOML file and the environment: options given on the command line win, then
PAWSERVE_ variables, then the file."""

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from serving.cli.errors import UsageError
from serving.cli.options import path

PREFIX = "PAWSERVE_"
KNOWN = (
    "ENGINES",
    "PHOTOS",
    "SERVER",
    "STATISTICS",
    "STATISTICS_FILE",
    "TLS_CA",
    "TLS_CERT",
    "TLS_KEY",
    "TOKEN",
    "TOKEN_FILE",
)
"""All variables that are read, without PREFIX."""
OF_SERVERS = ("ENGINE",)
"""Variables of options of `serve` that are similar to known ones: other commands may see them too."""
MIN_SIMILARITY = 0.82
"""Ratio of difflib from which a name counts as mistyped. Other names are allowed, since Kubernetes sets variables such
as PAWSERVE_SERVICE_HOST for a service of that name."""
MAX_FILE_BYTES = 2**20
OWN_VARIABLES = {"statistics"}
"""Options that read their variable themselves, since a file with a secret may stand for it."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config`, for a command whose options may be in a file or the environment."""
    parser.add_argument(
        "--config",
        type=path,
        metavar="FILE",
        help='TOML file with values of these options, such as listen = "0.0.0.0:50051"; an option given here wins, '
        f"then a variable such as ${PREFIX}LISTEN",
    )
    parser.set_defaults(configured=parser)


def variable_of(dest: str) -> str:
    """The environment variable of an option."""
    return PREFIX + dest.upper()


def parse_configured(
    parser: argparse.ArgumentParser, arguments: list[str], environment: Mapping[str, str] = os.environ
) -> argparse.Namespace:
    """Parse a command line; if its command has `--config`, with the values of the file and the environment.

    Raises:
        UsageError: if the file cannot be read, has an unknown key, or a value is not allowed.
    """
    options = parser.parse_args(arguments)
    command = getattr(options, "configured", None)
    if command is None:
        return options
    actions = _actions(command)
    values = _file_values(options.config, actions) | _environment_values(environment, actions)
    command.set_defaults(**values)
    options = parser.parse_args(arguments)
    for dest, value in values.items():
        if isinstance(value, list) and len(given := getattr(options, dest)) > len(value):
            setattr(options, dest, given[len(value) :])  # argparse adds to a default list; the command line replaces it
    return options


def option_variables(options: argparse.Namespace) -> list[str]:
    """The variables, without the prefix, that a parsed command reads because its options may be in the environment."""
    command = getattr(options, "configured", None)
    return [] if command is None else [dest.upper() for dest in _actions(command)]


def check_environment(environment: Mapping[str, str] = os.environ, others: Sequence[str] = ()) -> None:
    """Reject variables whose names are nearly known ones: a server would start without its database, for example.

    Args:
        others: further names without PREFIX that the chosen command reads.

    Raises:
        UsageError: if there is one; the message has the name that was probably meant.
    """
    known = (*KNOWN, *others)
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given == name or given in (*known, *OF_SERVERS):
            continue
        if meant := get_close_matches(given, known, n=1, cutoff=MIN_SIMILARITY):
            raise UsageError(
                f"the environment variable {name} is unknown; did you mean {PREFIX}{meant[0]}? Otherwise unset {name}"
            )


def _actions(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options that may be configured, by the names of their values."""
    actions = {action.dest: action for action in command._actions if action.option_strings}
    return {dest: action for dest, action in actions.items() if dest not in ("help", "config")}


def _environment_values(environment: Mapping[str, str], actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    values = {}
    for dest, action in actions.items():
        text = environment.get(variable_of(dest), "")
        if text and dest not in OWN_VARIABLES:
            words = text.split(",") if isinstance(action.default, list) else text
            values[dest] = _convert(action, words, f"the environment variable {variable_of(dest)}")
    return values


def _file_values(file: Path | None, actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    if file is None:
        return {}
    names = dict(_names(actions))
    values: dict[str, Any] = {}
    for key, value in _read(file).items():
        dest = names.get(key.replace("_", "-"))
        if dest is None:
            meant = get_close_matches(key.replace("_", "-"), names, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"keys are names of options: {', '.join(sorted(names))}"
            raise UsageError(f"{file}: the key {key} is unknown; {hint}")
        if dest in values:
            raise UsageError(f"{file}: {key} is given twice, under another name too; leave one of them out")
        values[dest] = _convert(actions[dest], value, f"{file}: {key}")
    return values


def _names(actions: Mapping[str, argparse.Action]) -> Iterator[tuple[str, str]]:
    for dest, action in actions.items():
        for option in action.option_strings:
            if not (isinstance(action, argparse.BooleanOptionalAction) and option.startswith("--no-")):
                yield option.removeprefix("--"), dest


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise UsageError(f"{file} has more than {MAX_FILE_BYTES:,} bytes; a configuration is much smaller")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"the configuration {file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML or UTF-8
        raise UsageError(f"the configuration {file} is not TOML: {error}") from error


def _convert(action: argparse.Action, value: Any, source: str) -> Any:
    """The value of an option.

    Raises:
        UsageError: if the value is not allowed, with its source.
    """
    if isinstance(value, dict):
        raise UsageError(f'{source} is a table; write values of options, such as listen = "127.0.0.1:50051"')
    if action.nargs == 0:  # a switch
        if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
            value = value.lower() in _TRUE
        if not isinstance(value, bool):
            raise UsageError(f"{source} is {value!r}; it is true or false")
        return value
    if isinstance(action.default, list):
        return [_convert_one(action, each, source) for each in (value if isinstance(value, list) else [value])]
    return _convert_one(action, value, source)


def _convert_one(action: argparse.Action, value: Any, source: str) -> Any:
    if isinstance(value, (bool, list, dict)):
        raise UsageError(f"{source} is {value!r}; write one value")
    try:
        converted = action.type(str(value)) if callable(action.type) else str(value)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise UsageError(f"{source}: {error}") from error
    if action.choices is not None and converted not in action.choices:
        raise UsageError(f"{source} is {value!r}; it is one of {', '.join(map(str, action.choices))}")
    return converted
