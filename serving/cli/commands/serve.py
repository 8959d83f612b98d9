"""`serve`: serve models over gRPC."""

import argparse
import os

from serving.cli.errors import DONE, CommandError, UsageError
from serving.cli.serve_options import add_serve_options, to_settings
from serving.context import RequestIdFilter
from serving.process import run as run_server
from serving.server import ServerFailed, StartupError
from serving.system.logs import configure


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.description = (
        "Serve models over gRPC until SIGTERM or Ctrl-C. When the server is ready, it prints one line on standard "
        "output: its address and what it serves. The log goes to standard error."
    )
    add_serve_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    configure(arguments.log_format, arguments.log_level, RequestIdFilter())
    os.umask(0o077)  # only the server's own user may read the files that it writes: keys and labels
    try:
        settings = to_settings(arguments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        run_server(settings)
    except (ServerFailed, StartupError) as error:
        raise CommandError(str(error)) from error
    return DONE
