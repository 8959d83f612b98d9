"""Skips tests whose libraries for GPUs are missing, unless the run needs them."""

import os

import pytest

from serving.engine.cuda import Gpu
from serving.engine.tensorrt_library import TensorRTLibrary
from serving.engine.tensorrt_rtx import CAPABILITIES, runs_on


def skip_without(library: str, problem: str | None) -> None:
    """Skip a test whose library has a problem; fail it if $PAWSERVE_GPU_NEEDS names the library."""
    if problem:
        needed = library in os.environ.get("PAWSERVE_GPU_NEEDS", "").split()
        (pytest.fail if needed else pytest.skip)(f"{library}: {problem}")


def skip_without_tensorrt(library: TensorRTLibrary, gpu: Gpu) -> None:
    """The same for TensorRT and TensorRT for RTX."""
    name = "tensorrt-rtx" if library.portable else "tensorrt"
    if not library.is_installed():
        skip_without(name, f"{library.title} is not installed: {library.install}")
    if library.portable and not runs_on(CAPABILITIES, gpu.compute_capability):
        skip_without(name, f"{library.title} does not run on {gpu.name} ({gpu.compute_capability})")
