"""Lint proto/ with buf, and compare pawserve.v1 with the released API (proto/baseline.binpb) for breaking changes.

After a release that adds to the API, run this with --accept to make the current proto/ the new baseline.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "proto" / "baseline.binpb"


def main() -> int:
    parser = argparse.ArgumentParser(description="Lint proto/ and compare it with the baseline.")
    parser.add_argument("--accept", action="store_true", help="make the current proto/ the baseline")
    accept = parser.parse_args().accept
    if accept:
        return _buf("build", "-o", str(BASELINE))
    return _buf("lint") or _buf("breaking", "--against", str(BASELINE))


def _buf(*arguments: str) -> int:
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run([buf, *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
