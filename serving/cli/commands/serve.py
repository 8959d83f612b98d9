"""`serve`: serve models over gRPC."""

import argparse
import asyncio
import os

from serving.cli.errors import DONE, CommandError, UsageError
from serving.cli.options import whole
from serving.cli.serve_options import add_serve_options, to_settings
from serving.context import add_request_id
from serving.process import run as run_server
from serving.processes.shares import automatic_count
from serving.processes.supervisor import Supervisor
from serving.startup import ServerFailed, StartupError
from serving.system.logs import configure
from serving.system.network import UNIX

MAX_PROCESSES = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.description = (
        "Serve models over gRPC until SIGTERM or Ctrl-C. When the server is ready, it prints one line on standard "
        "output: its address and what it serves. The log goes to standard error."
    )
    add_serve_options(parser)
    parser.add_argument(
        "--processes",
        type=_processes,
        default=1,
        metavar="N",
        help="processes that share the port, the CPUs and the limits, or auto: one for every 4 CPUs (1)",
    )


def _processes(text: str) -> int | None:
    """None for auto."""
    try:
        return None if text == "auto" else whole(MAX_PROCESSES)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from error


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    configure(arguments.log_format, arguments.log_level, add_request_id)
    os.umask(0o077)  # only the server's own user may read the files that it writes: keys and labels
    try:
        settings = to_settings(arguments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    count = automatic_count() if arguments.processes is None else arguments.processes
    for option, address in (("--listen", settings.listen), ("--http", settings.http.listen)):
        if count > 1 and address is not None and address.startswith(UNIX):
            raise UsageError(
                f"--processes {count} cannot be used with {option} {address}: several processes can listen on one "
                "port, but not on one Unix socket; give HOST:PORT, or --processes 1"
            )
    try:
        if count > 1:
            asyncio.run(Supervisor(settings, count, arguments.log_format, arguments.log_level).run())
        else:
            run_server(settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (ServerFailed, StartupError) as error:
        raise CommandError(str(error)) from error
    return DONE
