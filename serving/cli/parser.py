"""The table of commands, and how a command line is run.

The module of a command is imported when the command is chosen: help and light commands must not load the libraries of
the others, such as ONNX Runtime.
"""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from serving.cli.configuration import check_environment, option_variables, parse_configured
from serving.cli.errors import FAILED, INTERRUPTED, CommandError
from serving.engine.onnx_package import explain
from serving.system.output import accept_any_text, describe_version, discard_output, flushed_output

COMMANDS = {
    "serve": "serve the models in a folder",
    "ray": "serve them as replicas of a Ray cluster",
    "tune": "measure the fastest layout of engines on this host",
    "predict": "classify images",
    "label": "record the label of a prediction",
    "stats": "show the confusion matrix and the rates derived from it",
    "compare": "compare the accuracy of two versions",
    "promote": "choose the primary version of a model",
    "rollback": "undo the latest promotion of a model",
    "export-labels": "write the labels to a CSV or Parquet file",
    "health": "check whether a server is ready",
    "models": "list the model versions of a server and their states",
    "dev-certificate": "make certificates for trying TLS",
    "new-token": "make a bearer token for a client",
    "rotate-key": "replace the key that signs prediction tokens",
}
"""Each has a module with `add_options(parser)` and `run(arguments) -> exit code`."""


def main(arguments: Sequence[str], called_as: str | None = None) -> int:
    """Run one command.

    Args:
        called_as: how the user called the command, for its help; None for `python -m serving COMMAND`.

    Returns:
        Its exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    accept_any_text()
    try:
        parser = build_parser(arguments[0] if arguments else "", called_as)
        with flushed_output():
            options = parse_configured(parser, list(arguments))
            check_environment(others=option_variables(options))
            return int(options.run(options))
    except CommandError as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"pawserve: {explain(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return report_lost_output(error)


def report_lost_output(error: OSError) -> int:
    """Say what cannot be written, unless the reader of our output, such as `head`, has ended; the exit code."""
    if error.filename is None:
        discard_output()
    if not isinstance(error, BrokenPipeError):
        print(f"pawserve: {error.filename or 'the output'} cannot be used: {error.strerror}", file=sys.stderr)
    return FAILED


class _Parser(argparse.ArgumentParser):
    """Reports options that a command does not have under the command's name, with the one that was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            command: argparse.ArgumentParser = getattr(options, "command", self)
            name = unknown[0].partition("=")[0]
            meant = get_close_matches(name, command._option_string_actions, n=1)
            hint = f"; did you mean {meant[0]}?" if meant and name.startswith("-") else ""
            command.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options, []


def build_parser(chosen: str, called_as: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands. Only the chosen one has its options."""
    parser = _Parser(
        prog="python -m serving",
        description="Serve image classifiers over gRPC, classify images with them, and measure how accurate they are.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.",
    )
    version = describe_version() if chosen == "--version" else ""
    parser.add_argument("--version", action="version", version=version, help="print the version")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
    for name, text in COMMANDS.items():
        subparser = parsers.add_parser(name, help=text, prog=called_as if name == chosen else None)
        if name == chosen:
            place = "serving.ray.command" if name == "ray" else f"serving.cli.commands.{name.replace('-', '_')}"
            module = import_module(place)
            module.add_options(subparser)
            subparser.set_defaults(run=module.run, command=subparser)
    return parser
