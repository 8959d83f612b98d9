"""Protocol sources in; whether buf finds fault with them out: lint, and breaking changes of pawserve.v1.

The baseline, proto/baseline.binpb, is what callers may rely on. With --accept it becomes what proto/ is now: after a
release that adds to the API.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "proto" / "baseline.binpb"
IMPORTED = "google/rpc/status.proto"


def main() -> int:
    parser = argparse.ArgumentParser(description="Lint proto/, and compare it with the baseline.")
    parser.add_argument("--accept", action="store_true", help="make what is there now the baseline")
    accept = parser.parse_args().accept
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        shutil.copy(ROOT / "buf.yaml", workspace)
        shutil.copytree(ROOT / "proto", workspace / "proto", ignore=shutil.ignore_patterns("*.py", "*.binpb"))
        (workspace / "proto" / IMPORTED).parent.mkdir(parents=True)
        shutil.copy(Path(sysconfig.get_path("purelib")) / IMPORTED, workspace / "proto" / IMPORTED)
        if accept:
            return _buf(workspace, "build", "-o", str(BASELINE))
        return _buf(workspace, "lint") or _buf(workspace, "breaking", "--against", str(BASELINE))


def _buf(workspace: Path, *arguments: str) -> int:
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run([buf, *arguments], cwd=workspace, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
