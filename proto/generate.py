"""Generate serving/pb from proto/. With --check, compare only: exit code 1 if the committed code is out of date.

The sources are compiled under the virtual path serving/pb, so that the imports in the generated code need no editing.
"""

import argparse
import filecmp
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
GENERATED = Path("serving/pb")
OWN = ("inference", "pawserve")


def generate(out: Path) -> list[Path]:
    """Write the generated code below `out` and return the paths of its files, relative to `out`."""
    # without google/rpc: its Python classes are installed; the sources are there for other languages
    sources = sorted(file for package in OWN for file in (ROOT / "proto" / package).rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{GENERATED}={ROOT / 'proto'}",
        f"-I{sysconfig.get_path('purelib')}",  # google.rpc, from googleapis-common-protos
        f"-I{Path(protoc.__file__).parent / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(str(GENERATED / source.relative_to(ROOT / "proto")) for source in sources),
    ]
    if protoc.main(arguments) != 0:
        sys.exit(1)
    return sorted(path.relative_to(out) for path in out.rglob("*_pb2*"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate serving/pb from proto/.")
    parser.add_argument("--check", action="store_true", help="compare with the committed code; change nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        committed = sorted(path.relative_to(ROOT) for path in (ROOT / GENERATED).rglob("*_pb2*.py*"))
        committed = [path for path in committed if path.suffix in (".py", ".pyi")]
        stale = [path for path in fresh if not _same(ROOT / path, Path(folder) / path)]
        left = sorted(set(committed) - set(fresh))
    for path in stale + left:
        print(f"{path} does not match proto/; run make proto and commit it", file=sys.stderr)
    return 1 if stale or left else 0


def _same(committed: Path, fresh: Path) -> bool:
    return committed.exists() and filecmp.cmp(committed, fresh, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
