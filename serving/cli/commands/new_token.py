"""`new-token`: make a bearer token for a client."""

import argparse
import os
import sys
from pathlib import Path

from serving.cli.errors import DONE, CommandError
from serving.cli.options import path
from serving.context import Role
from serving.security.clients import client_line, new_token, parse_clients


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `new-token`."""
    parser.description = (
        "Make a random bearer token and print it. It is not stored. Its line for the file of `serve --clients` is "
        "added to --file, or printed to standard error."
    )
    parser.add_argument("name", metavar="NAME", help="the client's name")
    parser.add_argument("--roles", default=Role.PREDICT, metavar="ROLE[,ROLE]", help="predict, label, admin (predict)")
    parser.add_argument("--file", type=path, metavar="FILE", help="file of clients, created if it does not exist")


def run(arguments: argparse.Namespace) -> int:
    """Print a new token."""
    token = new_token()
    try:
        line = client_line(token, arguments.name, arguments.roles.split(","))
        if arguments.file is not None:
            _append(arguments.file, line)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    if arguments.file is None:
        print(line, file=sys.stderr)
    print(token)
    return DONE


def _append(path: Path, line: str) -> None:
    """Add a line to a file of clients. The result is checked first, since running servers read it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        before = file.read()
        gap = "\n" if before and not before.endswith("\n") else ""
        parse_clients(f"{before}{gap}{line}\n", str(path))
        file.write(f"{gap}{line}\n")
