"""Lock the requirements of the container images, with the hash of every file, from pyproject.toml and the .in files.

`python -m deploy.containers.lock` writes the files; `--check` compares them. Releases are taken from constraints.txt
and from the existing files, and stay until one of these changes. The files contain no index and no path.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("deploy/containers/requirements")
HEADER = "# Written by `make lock`. Linux on x86-64, CPython 3.11.\n"
NVIDIA_INDEX = "https://pypi.nvidia.com"
"""NVIDIA's package index, for packages that are too large for PyPI."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One file of requirements."""

    name: str
    sources: tuple[str, ...] = ()
    """.in files."""
    extras: tuple[str, ...] = ()
    """Extras of pyproject.toml."""
    overrides: str = ""
    dependencies: bool = True
    """Whether to lock the dependencies of the packages too."""
    index: str = ""
    """Empty for PyPI."""


SERVING = ("serving", "postgres", "otel")

LOCKS = (
    Lock(name="build", sources=("build.in",)),
    Lock(name="serving-cpu", sources=("start.in",), extras=SERVING),
    Lock(
        name="serving-gpu",
        sources=("start.in", "engine.in"),
        extras=(*SERVING, "gpu"),
        overrides="engine.overrides",
    ),
    Lock(name="training", sources=("start.in",), extras=("training", "export")),
    Lock(name="tensorrt-module", sources=("tensorrt-module.in",), dependencies=False),
    Lock(name="tensorrt-libraries", sources=("tensorrt-libraries.in",), dependencies=False, index=NVIDIA_INDEX),
)


def main() -> int:
    """Write or compare the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.containers.lock", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; list the files that are out of date")
    check = parser.parse_args().check
    outdated = []
    for lock in LOCKS:
        path = ROOT / FOLDER / f"{lock.name}.txt"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            content = resolve(lock, before)
        except subprocess.CalledProcessError as error:
            if not lock.index:
                print(error.stderr, file=sys.stderr)
                return 1
            print(f"{path.name}: {lock.index} does not answer; its releases stay without hashes", file=sys.stderr)
            content = before or HEADER + (ROOT / FOLDER / lock.sources[0]).read_text(encoding="utf-8")
        if content != before:
            outdated.append(path)
            if not check:
                path.write_text(content, encoding="utf-8")
    for path in outdated:
        print(f"{path.relative_to(ROOT)} {'is out of date: make lock' if check else 'written'}")
    return 1 if check and outdated else 0


def resolve(lock: Lock, before: str) -> str:
    """The file's content.

    Args:
        before: what it holds now: its releases are kept where they still fit.

    Raises:
        subprocess.CalledProcessError: if there is no resolution, or the index does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"{lock.name}.txt")
        out.write_text(before, encoding="utf-8")
        command = [sys.executable, "-m", "uv", "--quiet", "pip", "compile", "--output-file", out, "--generate-hashes"]
        command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "--no-header"]
        command += ["--no-annotate", "--constraint", "constraints.txt"]
        command += [FOLDER / source for source in lock.sources]
        if lock.extras:
            command += ["pyproject.toml", *(argument for extra in lock.extras for argument in ("--extra", extra))]
        if lock.overrides:
            command += ["--override", FOLDER / lock.overrides]
        if not lock.dependencies:
            command += ["--no-deps"]
        if lock.index:
            command += ["--default-index", lock.index]
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True, capture_output=True, text=True)
        return HEADER + "".join(
            line for line in out.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("#")
        )


if __name__ == "__main__":
    sys.exit(main())
