"""The commands of who runs a server: new-token for a caller, rotate-key for the key that signs feedback tokens."""

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path

from serving.context import Role
from serving.security.clients import client_line, new_token, parse_clients
from serving.tokens.keyring import rotate


def add_operator_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both."""
    new = commands.add_parser("new-token", help="make a bearer token for a caller")
    new.description = (
        "Make a random bearer token. It is printed, and kept nowhere; its line for the file of --auth-tokens is added "
        "to --file, or printed to standard error."
    )
    new.add_argument("name", metavar="NAME", help="whose token it is")
    new.add_argument("--roles", default=Role.PREDICT, metavar="ROLE[,ROLE]", help="predict, label, admin (predict)")
    new.add_argument("--file", type=Path, metavar="FILE", help="file of callers, made if there is none")
    new.set_defaults(run=make_token)

    turn = commands.add_parser("rotate-key", help="replace the key that signs feedback tokens")
    turn.description = (
        "Add a new key to the file of keys. Servers that use the file notice by themselves, sign with the new key from "
        "the time that is printed, and accept tokens of the earlier keys until the other one."
    )
    turn.add_argument("--state", type=Path, default=Path("state"), metavar="DIR", help="holds token.key (state)")
    turn.add_argument("--token-key", type=Path, metavar="FILE", help="the file (token.key in --state)")
    turn.add_argument(
        "--sign-after",
        type=_duration,
        default=timedelta(minutes=5),
        metavar="TIME",
        help="when the new key begins to sign, so that all replicas have it by then: 90s, 5m, 12h, 30d (5m)",
    )
    turn.add_argument(
        "--accept-old",
        type=_duration,
        default=timedelta(days=30),
        metavar="TIME",
        help="how long after that the earlier keys are accepted (30d)",
    )
    turn.set_defaults(run=rotate_key)


def make_token(arguments: argparse.Namespace) -> int:
    """Print a new token."""
    token = new_token()
    try:
        line = client_line(token, arguments.name, arguments.roles.split(","))
        if arguments.file is not None:
            _append(arguments.file, line)
    except (ValueError, OSError) as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return 1
    if arguments.file is None:
        print(line, file=sys.stderr)
    print(token)
    return 0


def rotate_key(arguments: argparse.Namespace) -> int:
    """Add a new key."""
    path = arguments.token_key or arguments.state / "token.key"
    try:
        begin, end = rotate(path, sign_after=arguments.sign_after, accept_old=arguments.accept_old)
    except (ValueError, OSError) as error:
        print(f"pawserve: the keys in {path} cannot be changed: {error}", file=sys.stderr)
        return 1
    print(f"{path}: the new key signs from {begin.isoformat()} on; earlier tokens are accepted until {end.isoformat()}")
    return 0


def _append(path: Path, line: str) -> None:
    """Add a line to a file of callers, which is checked first, so that a running server can go on with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        before = file.read()
        gap = "\n" if before and not before.endswith("\n") else ""
        parse_clients(f"{before}{gap}{line}\n", str(path))
        file.write(f"{gap}{line}\n")


def _duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    if not (text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in units):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 5m, 12h or 30d")
    return timedelta(seconds=int(text[:-1]) * units[text[-1]])
