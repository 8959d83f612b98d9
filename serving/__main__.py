"""Runs `python -m serving COMMAND`."""

import sys

try:
    from serving.cli.parser import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
