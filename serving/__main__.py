"""Runs `python -m serving COMMAND`."""

import sys

from serving.cli.parser import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
