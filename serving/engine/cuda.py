"""Calls of the CUDA runtime, the GPUs of the host, and CUDA graphs.

Every function of cuda-python returns a tuple that starts with an error code; pointers are plain integers. A CUDA graph
is work on a stream that is launched with one call instead of one for each kernel.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engine.base import DeviceLost

_NO_DEVICE, _OLD_DRIVER = 100, 35
DEVICE = 0
"""The GPU that is used, as CUDA counts those that it sees."""
DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/nvhost-ctrl"))
"""A host with a driver has one of them: on Linux, in the Windows Subsystem for Linux, on a Jetson."""


class CudaError(RuntimeError):
    """A CUDA call failed, or the host has no usable GPU; the message says which, and what to do."""


def load_cudart() -> Any:
    """Import the module `cuda.bindings.runtime`.

    Raises:
        CudaError: if it is not installed.
    """
    try:
        from cuda.bindings import runtime as cudart
    except (ImportError, OSError) as error:
        raise CudaError(f"cuda-python cannot be imported ({error}): pip install 'pawserve[gpu]'") from error
    return cudart


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a CUDA function and return its result: None, one value, or a tuple of several.

    Raises:
        CudaError: naming the function and CUDA's error.
    """
    error, *results = function(*arguments)
    if int(error) != 0:
        raise CudaError(f"{getattr(function, '__name__', function)} failed: {getattr(error, 'name', error)}")
    if not results:
        return None
    return results[0] if len(results) == 1 else tuple(results)


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    compute_capability: str
    """Such as `9.0`."""


def has_gpu_driver() -> bool:
    """Whether the host seems to have a GPU, without loading CUDA, which takes a quarter of a second."""
    return any(path.exists() for path in DEVICE_FILES)


def find_gpu() -> Gpu:
    """Find the GPU of this host.

    Raises:
        CudaError: if there is no driver, one too old for CUDA 13, or no GPU.
    """
    cudart = load_cudart()
    error, count = cudart.cudaGetDeviceCount()
    if int(error) == _OLD_DRIVER:
        raise CudaError("there is no NVIDIA driver, or it is too old: CUDA 13 needs driver 580 or newer")
    if int(error) == _NO_DEVICE or (int(error) == 0 and not count):
        raise CudaError("this host has no NVIDIA GPU that CUDA can see; engines are built and run on GPU hosts")
    if int(error) != 0:
        raise CudaError(f"CUDA cannot be used: {getattr(error, 'name', error)}")
    properties = call(cudart.cudaGetDeviceProperties, DEVICE)
    name = properties.name
    return Gpu(
        name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name),
        f"{properties.major}.{properties.minor}",
    )


def free_memory() -> int:
    """Bytes of the current GPU's memory that are free."""
    free, _ = call(load_cudart().cudaMemGetInfo)
    return int(free)


def raise_if_lost() -> None:
    """Check the GPU after an error.

    Raises:
        DeviceLost: if the GPU fails every further call of this process ("sticky" errors).
    """
    cudart = load_cudart()
    cudart.cudaGetLastError()  # removes the error of a single call; that of a lost GPU stays
    try:
        call(cudart.cudaDeviceSynchronize)
    except CudaError as error:
        raise DeviceLost(f"the GPU fails all further calls of this process ({error})") from error


class CudaGraph:
    """Work that is captured once, with its addresses and shapes, and launched many times."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` puts on a stream. It must have run there before, so that it allocates nothing.

        Raises:
            CudaError: if the work cannot be captured.
            Exception: what `enqueue` raises; the stream is then as it was.
        """
        self._cudart = cudart = load_cudart()
        self._stream = stream
        # thread-local: allocations of other threads do not break this capture
        call(cudart.cudaStreamBeginCapture, stream, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        except BaseException:
            with suppress(CudaError):  # the first error is the one to report
                unfinished = call(cudart.cudaStreamEndCapture, stream)
                call(cudart.cudaGraphDestroy, unfinished)
            raise
        graph = call(cudart.cudaStreamEndCapture, stream)
        try:
            self._executable: Any = call(cudart.cudaGraphInstantiate, graph, 0)
        finally:
            call(cudart.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """Launch the work on the stream.

        Raises:
            CudaError: if it cannot be launched.
        """
        call(self._cudart.cudaGraphLaunch, self._executable, self._stream)

    def close(self) -> None:
        """Free it; the stream must be idle. A second call does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            call(self._cudart.cudaGraphExecDestroy, executable)
