"""`rotate-key`: replace the key that signs prediction tokens."""

import argparse
from datetime import timedelta
from pathlib import Path

from serving.cli.errors import DONE, CommandError
from serving.cli.options import duration, path
from serving.tokens.keyring import rotate


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `rotate-key`."""
    parser.description = (
        "Add a new key to the key file. Running servers notice the change. They sign with the new key from the first "
        "time that is printed, and accept tokens of the earlier keys until the second."
    )
    add = parser.add_argument
    add("--state", type=path, default=Path("state"), metavar="DIR", help="folder that holds token.key (state)")
    add("--token-key", type=path, metavar="FILE", help="the key file (token.key in --state)")
    add(
        "--sign-after",
        type=duration,
        default=timedelta(minutes=5),
        metavar="TIME",
        help="when the new key begins to sign; all replicas must have it by then: 90s, 5m, 12h, 30d (5m)",
    )
    add(
        "--accept-old",
        type=duration,
        default=timedelta(days=30),
        metavar="TIME",
        help="how long after that the earlier keys are accepted (30d)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Add the key."""
    path = arguments.token_key or arguments.state / "token.key"
    try:
        begin, end = rotate(path, sign_after=arguments.sign_after, accept_old=arguments.accept_old)
    except (ValueError, OSError) as error:
        raise CommandError(f"the keys in {path} cannot be changed: {error}") from error
    print(f"{path}: the new key signs from {begin.isoformat()} on; earlier tokens are accepted until {end.isoformat()}")
    return DONE
