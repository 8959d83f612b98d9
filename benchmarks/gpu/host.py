"""What this host has: a GPU, its driver, libraries; and commands that are run on it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.common import REPOSITORY

ON_CPU = "GPU_CHECK_ON_CPU"
"""Environment variable that lets the parts run without a GPU, with less work, to try the check itself."""


class Skipped(Exception):
    """The part cannot run here; the message says why."""


def need_gpu() -> str:
    """The GPU by its name.

    Raises:
        Skipped: if there is none that torch can use.
    """
    if os.environ.get(ON_CPU):
        return "none: a rehearsal on the CPU"
    listed = nvidia_smi()
    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch is not installed")
    import torch

    if not torch.cuda.is_available():
        seen = f"the driver lists {listed[0].partition(',')[0]}, but " if listed else "there is no NVIDIA driver, and "
        raise Skipped(f"{seen}torch {torch.__version__} sees no GPU (built for CUDA: {torch.version.cuda or 'no'})")
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"


def nvidia_smi() -> list[str]:
    """Name, driver, memory and compute capability of each GPU; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    found = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return found.stdout.strip().splitlines() if found.returncode == 0 else []


def installed(name: str) -> str:
    """The version of a package; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def need(*modules: str) -> None:
    """Raise Skipped if one of the modules is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise Skipped(f"{module} is not installed; fetch its wheel with deploy/gpu-wheels.py")


def command(package: str, *arguments: object) -> str:
    """What `python -m package arguments…` prints: its output, or what it says on standard error if it has none.

    Raises:
        RuntimeError: with the last line of its errors, if it fails.
    """
    words = [sys.executable, "-m", package, *map(str, arguments)]
    finished = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError((finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1])
    return finished.stdout.strip() or finished.stderr.strip() or "nothing"
