"""The installed packages of ONNX Runtime: those with CUDA and without share a folder, and damage each other."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import onnxruntime as ort

CPU_PACKAGE, GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
REPAIR = (
    f"pip uninstall -y {CPU_PACKAGE} {GPU_PACKAGE}, then pip install '{GPU_PACKAGE}[cuda,cudnn]' (or {CPU_PACKAGE} on "
    "a host without a GPU)"
)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_complete(module: object = ort) -> None:
    """Check that the module is whole: after one of the packages is uninstalled, parts of the other are missing.

    Raises:
        ImportError: with the commands that repair it.
    """
    if not hasattr(module, "InferenceSession"):
        raise ImportError(f"the module onnxruntime has no InferenceSession, it is incomplete: {REPAIR}")


def why_no_cuda(installed: Callable[[str], str | None] = _installed) -> str | None:
    """Why the installed packages have no CUDA, with the commands to repair that; None if they have.

    Args:
        installed: the installed release of a package, or None.
    """
    cpu, gpu = installed(CPU_PACKAGE), installed(GPU_PACKAGE)
    if cpu and gpu:
        return f"{CPU_PACKAGE} {cpu} and {GPU_PACKAGE} {gpu} are both installed, and overwrite each other: {REPAIR}"
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"{CPU_PACKAGE} {cpu} has no CUDA: {REPAIR}"
    return None
