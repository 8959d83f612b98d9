"""The arguments of `python -m serving` in; a server on TensorRT engines that were built on this GPU out.

The first process of the serving-gpu image. Before the server starts, each bundle that it will serve gets its engine:
found in $PAWSERVE_ENGINES, or built there, which takes minutes. The server then takes this process's place. `engines`
ends there, so that engines can be built before servers need them. Other commands than these two, and
`serve --engine cpu` or `cuda`, go to `python -m serving` as they are.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import Bundle, BundleError, Precision
from serving.engine.tensorrt_cache import default_engines

LEFTOVERS = ".engine.*"
"""Folders of engines that were being built when the process was killed."""


def main(arguments: Sequence[str]) -> None:
    """Build what is missing, then become the server, unless only engines are asked for.

    Raises:
        SystemExit: if an engine cannot be built, or `engines` has a wrong option; what it is for is said.
    """
    if arguments[:1] == ["engines"]:
        _build_engines(_parser("engines").parse_args(arguments[1:]))
        return
    if arguments[:1] == ["serve"]:
        parser = _parser("serve")
        parser.add_argument("--engine")
        asked = parser.parse_known_args(arguments[1:])[0]  # `serve` itself checks them all
        if asked.engine in (None, "tensorrt"):
            _build_engines(asked)
            arguments = ["serve", "--engine", "tensorrt", *arguments[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "serving", *arguments])


def _build_engines(asked: argparse.Namespace) -> None:
    try:
        bundles = find_bundles(asked.models, tuple(asked.model), asked.keep_versions)
        with only_builder(default_engines()) as engines:
            for bundle in bundles:
                build_engine(bundle, asked.precision, engines)
    except (BundleError, OSError) as error:
        sys.exit(f"pawserve: {error}")
    except subprocess.CalledProcessError as error:  # it has said why
        sys.exit(max(error.returncode, 1))


def build_engine(bundle: Bundle, precision: Precision | None, engines: Path) -> None:
    """Have an engine of this bundle for this GPU in the cache.

    Args:
        precision: None for fp16, if the bundle has it, else fp32. INT8 is built only if it is asked for.

    Raises:
        subprocess.CalledProcessError: if it cannot be built, or its answers differ from ONNX Runtime's.
        BundleError: if the bundle has no file of that precision.
    """
    if precision is None:
        precision = "fp16" if any(each.precision == "fp16" for each in bundle.manifest.artifacts) else "fp32"
    bundle.artifact(precision, "tensorrt")
    command = [sys.executable, "-m", "export", "engine", str(bundle.folder), "--precision", precision]
    command += ["--engines", str(engines)]
    if photos := os.environ.get("PAWSERVE_PHOTOS"):
        command += ["--photos", photos]
    subprocess.run(command, check=True)


@contextmanager
def only_builder(engines: Path) -> Iterator[Path]:
    """Hold the cache for one builder at a time, and clear it of what a killed one left.

    Raises:
        OSError: if the folder cannot be written.
    """
    engines.mkdir(parents=True, exist_ok=True)
    with (engines / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in engines.glob(LEFTOVERS):
            shutil.rmtree(leftover)
        yield engines


def _parser(command: str) -> argparse.ArgumentParser:
    """What of `serve`'s options says which engines are needed."""
    parser = argparse.ArgumentParser(prog=command, allow_abbrev=False, add_help=command == "engines")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--keep-versions", type=int, default=1)
    parser.add_argument("--precision", choices=get_args(Precision))
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
