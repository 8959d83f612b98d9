"""Protocol sources in; whether buf finds fault with them out: lint, and breaking changes of pawserve.v1.

The baseline, proto/baseline.binpb, is what callers may rely on. With --accept it becomes what proto/ is now: after a
release that adds to the API.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "proto" / "baseline.binpb"


def main() -> int:
    parser = argparse.ArgumentParser(description="Lint proto/, and compare it with the baseline.")
    parser.add_argument("--accept", action="store_true", help="make what is there now the baseline")
    accept = parser.parse_args().accept
    if accept:
        return _buf("build", "-o", str(BASELINE))
    return _buf("lint") or _buf("breaking", "--against", str(BASELINE))


def _buf(*arguments: str) -> int:
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run([buf, *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
