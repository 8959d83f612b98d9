#!/usr/bin/env python3
"""Fetch the wheels that deploy/gpu-check.sh installs on a GPU host without a network. Run it where there is one.

    python deploy/gpu-wheels.py --out wheels --python 3.12 --with onnxruntime-gpu tensorrt-rtx --piece-mb 60

torch, torchvision and NVIDIA's libraries that come with torch are not fetched: the GPU host has them. Versions are
those of constraints.txt and pyproject.toml. The folder gets the wheels, `requirements-3.12.txt` with the exact versions
for each Python, and SHA256SUMS. With --piece-mb, larger wheels are cut into pieces NAME.whl.part-000, …, which
gpu-check.sh joins.
"""

import argparse
import email
import hashlib
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename
except ModuleNotFoundError:  # it is part of pip
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = {
    "onnxruntime-gpu": ["onnxruntime-gpu", "cuda-python"],
    "tensorrt": EXTRAS["gpu"],
    "tensorrt-rtx": EXTRAS["tensorrt-rtx"],
    "fastai": ["fastai"],
    "pytest": ["pytest", "pytest-timeout"],
}
ON_THE_HOST = re.compile(r"torch(vision|audio)?|triton|setuptools|pip|nvidia-.*|cuda-toolkit")
"""What comes with the host's torch."""
PLATFORMS = ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "linux")
"""The newest glibc first: that of Ubuntu 22.04."""
TENSORRT, TENSORRT_INDEX = "tensorrt-cu13", "https://pypi.nvidia.com"
"""The package is published as source code only; the index has the wheel of its libraries, which PyPI does not have."""


def main(given: Sequence[str] | None = None) -> int:
    """Fetch the wheels; 1 if pip cannot fetch one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=lambda text: Path(text).expanduser(),
        required=True,
        help="folder to write; it may hold wheels of an earlier run",
    )
    parser.add_argument("--python", nargs="+", default=["3.12"], metavar="3.X", help="Pythons of the GPU host (3.12)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--with", nargs="+", default=[], choices=OPTIONAL, dest="optional", help="what else to fetch")
    chosen.add_argument("--packages", nargs="+", metavar="NAME", help="only these and what they need")
    parser.add_argument("--piece-mb", type=int, metavar="MB", help="cut larger wheels into pieces of so many MB")
    options = parser.parse_args(given)
    if options.piece_mb is not None and options.piece_mb < 1:
        parser.error(f"--piece-mb {options.piece_mb} must be at least 1")
    if wrong := [each for each in options.python if not re.fullmatch(r"3\.1[1-9]", each)]:
        parser.error(f"--python {wrong[0]} must be 3.11 or newer, such as 3.12")
    roots = options.packages or project_requirements(options.optional)
    left_out = {"onnxruntime"} if "onnxruntime-gpu" in options.optional else set()  # they share a folder
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for python in options.python:
            versions = fetch(roots, python, options.out, left_out)
            lines = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
            (options.out / f"requirements-{python}.txt").write_text(lines)
            print(f"Python {python}: {len(versions)} packages")
    except subprocess.CalledProcessError as error:
        print(f"gpu-wheels: pip failed, see above (exit code {error.returncode})", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"gpu-wheels: {error}", file=sys.stderr)
        return 1
    finish(options.out, options.piece_mb)
    total = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {total / 1e6:,.0f} MB in {len(list(options.out.iterdir()))} files")
    return 0


def project_requirements(optional: Iterable[str]) -> list[str]:
    """What the project needs on a GPU host."""
    needed = [*PROJECT["dependencies"], *EXTRAS["serving"], *EXTRAS["training"], *EXTRAS["export"]]
    return [each for each in needed if not each.startswith("pawserve")] + [
        each for name in optional for each in OPTIONAL[name]
    ]


def fetch(roots: Iterable[str], python: str, folder: Path, left_out: set[str]) -> dict[str, str]:
    """Fetch wheels and what they need, level by level; their versions by name.

    Raises:
        ValueError: if a wheel is a placeholder, which some indexes have for packages that another one has.
    """
    pins = constraints()
    versions: dict[str, str] = {}
    waiting = [Requirement(each) for each in roots]
    while waiting:
        level = {}
        for each in waiting:
            name = canonicalize_name(each.name)
            if name not in versions and name not in left_out and not ON_THE_HOST.fullmatch(name):
                level[name] = f"{name}=={pins[name]}" if name in pins else f"{each.name}{each.specifier}"
        waiting = []
        for wheel in download(list(level.values()), python, folder) if level else []:
            name, version, *_ = parse_wheel_filename(wheel.name)
            if not any(version.release):
                raise ValueError(f"{wheel.name} is a placeholder: name a version, such as {name}==1.2")
            versions[name] = str(version)
            waiting += requirements_of(wheel, python)
    return versions


def constraints() -> dict[str, str]:
    """Exact versions by name, of constraints.txt and the extras; local versions such as +cpu are not on PyPI."""
    lines = (line.partition("#")[0] for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = (line.split(";")[0].strip().partition("==") for line in itertools.chain(lines, *EXTRAS.values()))
    return {
        canonicalize_name(name.partition("[")[0]): version.partition("+")[0] for name, exact, version in pins if exact
    }


def download(requirements: list[str], python: str, folder: Path) -> list[Path]:
    """The wheels of requirements, without what they need."""
    compatible = [f"--platform={each}_x86_64" for each in PLATFORMS]
    wheels = []
    for requirement in requirements:
        print(f"  {requirement}", flush=True)
        name = canonicalize_name(Requirement(requirement).name)
        if name == TENSORRT:
            command = ["wheel", f"--wheel-dir={folder}"]
        else:
            command = ["download", "--only-binary=:all:", *compatible, f"--python-version={python}"]
            command += ["--implementation=cp", f"--dest={folder}"]
        if name.startswith(TENSORRT):
            command.append(f"--extra-index-url={TENSORRT_INDEX}")
        command = [sys.executable, "-m", "pip", *command, "--quiet", "--no-deps", requirement]
        subprocess.run(command, check=True)
        fitting = [path for path in folder.glob("*.whl") if parse_wheel_filename(path.name)[0] == name]
        tag = f"cp{python.replace('.', '')}"
        own = [path for path in fitting if tag in path.name] or [
            path for path in fitting if "abi3" in path.name or "-py3-" in path.name or "py2.py3" in path.name
        ]
        wheels.append(max(own or fitting, key=lambda path: path.stat().st_mtime_ns))
    return wheels


def requirements_of(wheel: Path, python: str) -> list[Requirement]:
    """What a wheel needs on 64-bit Linux, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.message_from_bytes(archive.read(path))
    host = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    host |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix", "extra": ""}
    host |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    needed = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [each for each in needed if each.marker is None or each.marker.evaluate(host)]


def finish(folder: Path, piece_mb: int | None) -> None:
    """Write the checksums of all wheels, and cut large ones into pieces."""
    known = dict(line.split("  ")[::-1] for line in _lines(folder / "SHA256SUMS"))
    for wheel in sorted(folder.glob("*.whl")):
        with wheel.open("rb") as file:
            known[wheel.name] = hashlib.file_digest(file, "sha256").hexdigest()
        for piece in folder.glob(f"{wheel.name}.part-*"):  # of an earlier run
            piece.unlink()
        if piece_mb is not None and wheel.stat().st_size > piece_mb * 10**6:
            with wheel.open("rb") as file:
                number = 0
                while piece := file.read(piece_mb * 10**6):
                    (folder / f"{wheel.name}.part-{number:03d}").write_bytes(piece)
                    number += 1
            wheel.unlink()
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(known.items())))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
