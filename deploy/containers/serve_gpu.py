"""Entry point of the serving-gpu image: build missing TensorRT engines for this GPU, then run `python -m serving`.

`serve` first builds the engines of those bundles that have none in $PAWSERVE_ENGINES, which takes minutes, and then
replaces this process with the server. `engines` only builds, so that engines exist before servers need them. All other
commands, and `serve --engine cpu` or `cuda`, are passed to `python -m serving`.
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
from serving.cli.options import path
from serving.engine.tensorrt_cache import default_engines

LEFTOVERS = ".engine.*"
"""Unfinished engines of a process that was killed."""


def main(arguments: Sequence[str]) -> None:
    """Build missing engines, then run `python -m serving` in this process, unless the command is `engines`.

    Raises:
        SystemExit: if an engine cannot be built, or an option of `engines` is invalid; the reason is printed.
    """
    if arguments[:1] == ["engines"]:
        _build_engines(_parser("engines").parse_args(arguments[1:]))
        return
    if arguments[:1] == ["serve"]:
        parser = _parser("serve")
        parser.add_argument("--engine")
        options = parser.parse_known_args(arguments[1:])[0]  # `serve` itself checks all options
        if options.engine in (None, "tensorrt"):
            _build_engines(options)
            arguments = ["serve", "--engine", "tensorrt", *arguments[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "serving", *arguments])


def _build_engines(options: argparse.Namespace) -> None:
    try:
        bundles = find_bundles(options.models, tuple(options.model), options.keep_versions)
        with only_builder(default_engines()) as engines:
            for bundle in bundles:
                build_engine(bundle, options.precision, engines)
    except (BundleError, OSError) as error:
        sys.exit(f"pawserve: {error}")
    except subprocess.CalledProcessError as error:  # the command has printed why
        sys.exit(max(error.returncode, 1))


def build_engine(bundle: Bundle, precision: Precision | None, engines: Path) -> None:
    """Build the engine of a bundle for this GPU, unless the cache already holds it.

    Args:
        precision: if None, fp16 if the bundle has it, else fp32. INT8 is built only if it is given here.

    Raises:
        subprocess.CalledProcessError: if the engine cannot be built, or its outputs differ from ONNX Runtime's.
        BundleError: if the bundle has no file of that precision.
    """
    if precision is None:
        precision = "fp16" if any(each.precision == "fp16" for each in bundle.manifest.artifacts) else "fp32"
    bundle.artifact(precision, "tensorrt")
    command = [sys.executable, "-m", "export", "engine", str(bundle.folder), "--precision", precision]
    command += ["--engines", str(engines)]
    if images := os.environ.get("PAWSERVE_PHOTOS"):
        command += ["--images", images]
    subprocess.run(command, check=True)


@contextmanager
def only_builder(engines: Path) -> Iterator[Path]:
    """Lock the engine cache, so that one process builds at a time, and remove what a killed process left.

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
    """A parser of those options of `serve` that decide which engines are needed."""
    parser = argparse.ArgumentParser(prog=command, allow_abbrev=False, add_help=command == "engines")
    parser.add_argument("--models", type=path, default=Path("models"))
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--keep-versions", type=int, default=1)
    parser.add_argument("--precision", choices=get_args(Precision))
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
