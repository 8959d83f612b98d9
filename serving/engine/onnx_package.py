"""The installed packages of ONNX Runtime: those with CUDA and without share a folder, and damage each other."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

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


def check_complete() -> None:
    """Check that the module is whole: after one of the packages is uninstalled, parts of the other are missing.

    Raises:
        ImportError: with the commands that repair it.
    """
    if not hasattr(import_module(CPU_PACKAGE), "InferenceSession"):
        problem = f"the module {CPU_PACKAGE} has no InferenceSession, it is incomplete: {REPAIR}"
        raise ImportError(problem, name=CPU_PACKAGE)


def explain(error: ImportError) -> str:
    """Say how to repair ONNX Runtime, if it is what could not be imported; otherwise raise the error."""
    if (error.name or "").partition(".")[0] != CPU_PACKAGE:
        raise error
    return str(error) if REPAIR in str(error) else f"{error}: {REPAIR}"


def why_no_cuda(installed: Callable[[str], str | None] = _installed) -> str | None:
    """Why the installed packages have no CUDA, with the commands to repair that; None if they have.

    Args:
        installed: the installed release of a package, or None.
    """
    cpu, gpu = installed(CPU_PACKAGE), installed(GPU_PACKAGE)
    if cpu and gpu:
        return f"{CPU_PACKAGE} {cpu} and {GPU_PACKAGE} {gpu} are both installed, and overwrite each other: {REPAIR}"
    if not cpu and not gpu:
        return f"neither {CPU_PACKAGE} nor {GPU_PACKAGE} is installed: {REPAIR}"
    if "CUDAExecutionProvider" not in import_module(CPU_PACKAGE).get_available_providers():
        return f"{f'{GPU_PACKAGE} {gpu}' if gpu else f'{CPU_PACKAGE} {cpu}'} has no CUDA: {REPAIR}"
    return None
