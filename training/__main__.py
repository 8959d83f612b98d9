"""`python -m training`: runs `training.cli.program`, and handles Ctrl-C while it is being imported."""

import sys
from collections.abc import Sequence

from training.command import settle_interrupt


def main(arguments: Sequence[str], called_as: str | None = None) -> int:
    """Import the program and run one of its commands, which the user called `called_as`; returns its exit code."""
    try:
        from training.cli import program
    except KeyboardInterrupt:
        print("python -m training: interrupted; nothing was written", file=sys.stderr)
        return settle_interrupt()
    return program.main(arguments, called_as)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
