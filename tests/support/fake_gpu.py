"""A fake GPU: a fake of `cuda.bindings.runtime` for tests of control flow; fake_tensorrt.py fakes `tensorrt`.

They keep the real return conventions (checked against the real bindings elsewhere): None, False and -1 instead of
exceptions, tuples that start with an error code, host memory behind integer pointers. The "engine" answers with a
fixed softmax of each image's mean, so that tests see which rows came back.
"""

import ctypes
import hashlib
import json
import types
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from serving.bundle.manifest import Precision
from serving.engine.tensorrt_cache import PLAN, SIDECAR, Sidecar

CROP, CLASSES = 8, 2
RELEASE, RTX_RELEASE, NAME = "11.4.0.106", "1.7.1.116", "NVIDIA Fake GPU"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class CudaCode(IntEnum):
    """The error codes that the code handles, and two that it only prints."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700


class CopyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


@dataclass
class FakeGpu:
    """The state of the fake host; tests set which calls fail."""

    count_error: CudaCode = CudaCode.cudaSuccess
    compute_capability: str = "9.0"
    devices: int = 1
    memory: int = 1 << 30
    context_bytes: int = 1 << 20
    parse_errors: tuple[tuple[str, str, str], ...] = ()
    """Node, operator and description of each."""
    builder_fails: bool = False
    build_fails: bool = False
    profile_index: int = 0
    stale_timings: bool = False
    steps: int = 3
    during_build: Any = None
    """Called after each of the build's steps."""
    refuse_execution: bool = False
    no_context: bool = False
    bias: float = 0.0
    """Added to a logit: an engine that answers wrongly."""
    capture_fails: bool = False
    lost: bool = False
    """Whether every call that computes fails, as after an invalid memory access."""
    captured: int = 0
    launched: int = 0
    log: list[str] = field(default_factory=list)
    capturing: dict[int, list[Any]] = field(default_factory=dict)
    """Stream -> the work that is recorded there instead of done."""
    allocated: dict[int, Any] = field(default_factory=dict)
    """Address -> memory that was not freed yet."""
    built: int = 0
    kernels: bytes = b"kernels"
    """What TensorRT for RTX has compiled after the engines were made."""
    stale_kernels: bool = False

    def plan(self, max_batch: int) -> bytes:
        return json.dumps({"min": 1, "max": max_batch}).encode()

    def write_engine(
        self, engines: Path, onnx_sha256: str, precision: Precision, *, max_batch: int, **facts: Any
    ) -> Path:
        """Write an engine to the cache, as a build on this host does.

        Args:
            facts: other fields of its sidecar.
        """
        plan = self.plan(max_batch)
        sidecar = Sidecar(
            onnx_sha256=onnx_sha256,
            precision=precision,
            tensorrt=RELEASE,
            gpu=NAME,
            compute_capability="9.0",
            min_batch=1,
            opt_batch=1,
            max_batch=max_batch,
            optimization_level=3,
            plan_sha256=sha256(plan),
            plan_bytes=len(plan),
        )
        sidecar = replace(sidecar, **facts)
        folder = engines / sidecar.key()
        folder.mkdir(parents=True)
        (folder / PLAN).write_bytes(plan)
        (folder / SIDECAR).write_text(json.dumps(asdict(sidecar)))
        return folder

    def answers(self, images_NHWC: np.ndarray) -> np.ndarray:
        """The fake network: probabilities float32 `[N, 2]`."""
        logit = images_NHWC.reshape(len(images_NHWC), -1).mean(1) / 32 - 4 + self.bias
        second = 1 / (1 + np.exp(-logit))
        return np.stack([1 - second, second], 1).astype(np.float32)


def fake_cudart(gpu: FakeGpu) -> types.ModuleType:
    """The functions of `cuda.bindings.runtime` that are used."""
    ok = CudaCode.cudaSuccess
    module = types.ModuleType("cuda.bindings.runtime")

    def allocate(size: int) -> tuple[Any, ...]:
        if size > gpu.memory:
            return CudaCode.cudaErrorMemoryAllocation, None
        memory = (ctypes.c_uint8 * size)()
        gpu.allocated[ctypes.addressof(memory)] = memory
        return ok, ctypes.addressof(memory)

    def free(pointer: int) -> tuple[Any, ...]:
        del gpu.allocated[pointer]
        return (ok,)

    capturing = gpu.capturing
    graphs: dict[int, list[Any]] = {}

    def begin_capture(stream: int, mode: CaptureMode) -> tuple[Any, ...]:
        assert mode is CaptureMode.cudaStreamCaptureModeThreadLocal
        if gpu.capture_fails:
            return (CudaCode.cudaErrorIllegalAddress,)
        capturing[stream] = []
        return (ok,)

    def end_capture(stream: int) -> tuple[Any, ...]:
        graph = allocate(1)[1]
        graphs[graph] = capturing.pop(stream)
        return ok, graph

    def instantiate(graph: int, flags: int) -> tuple[Any, ...]:
        executable = allocate(1)[1]
        graphs[executable] = graphs[graph]
        gpu.captured += 1
        return ok, executable

    def launch(executable: int, stream: int) -> tuple[Any, ...]:
        assert executable in gpu.allocated, "launched a graph that was freed"
        gpu.launched += 1
        for work in graphs[executable]:
            work()
        return (ok,)

    def copy(target: int, source: int, size: int, kind: CopyKind, stream: int) -> tuple[Any, ...]:
        assert stream in gpu.allocated, "copied on a stream that does not exist"
        device = target if kind is CopyKind.cudaMemcpyHostToDevice else source
        assert size <= len(gpu.allocated[device]), "copied beyond the buffer"
        if stream in capturing:
            capturing[stream].append(lambda: ctypes.memmove(target, source, size))
        else:
            ctypes.memmove(target, source, size)
        return (ok,)

    def state() -> CudaCode:
        return CudaCode.cudaErrorIllegalAddress if gpu.lost else ok

    functions = {
        "cudaGetDeviceCount": lambda: (gpu.count_error, None if gpu.count_error else gpu.devices),
        "cudaGetDeviceProperties": lambda index: (
            ok,
            types.SimpleNamespace(
                name=NAME.encode() + b"\0" * 8,
                **dict(zip(("major", "minor"), map(int, gpu.compute_capability.split(".")), strict=True)),
            ),
        ),
        "cudaMemGetInfo": lambda: (ok, gpu.memory, 2 * gpu.memory),
        "cudaSetDevice": lambda index: (ok,),
        "cudaStreamCreateWithFlags": lambda flags: allocate(1),
        "cudaStreamDestroy": free,
        "cudaGetLastError": lambda: (state(),),
        "cudaDeviceSynchronize": lambda: (state(),),
        "cudaStreamSynchronize": lambda stream: (state(),),
        "cudaMalloc": allocate,
        "cudaMallocHost": allocate,
        "cudaFree": free,
        "cudaFreeHost": free,
        "cudaMemcpyAsync": copy,
        "cudaStreamBeginCapture": begin_capture,
        "cudaStreamEndCapture": end_capture,
        "cudaGraphInstantiate": instantiate,
        "cudaGraphLaunch": launch,
        "cudaGraphDestroy": free,
        "cudaGraphExecDestroy": free,
    }
    for name, function in functions.items():
        setattr(module, name, function)
    module.cudaStreamNonBlocking = 1
    module.cudaMemcpyKind = CopyKind
    module.cudaStreamCaptureMode = CaptureMode
    return module
