"""A host with a GPU that is not there: fakes of `tensorrt` and `cuda.bindings.runtime` for tests of control flow.

They keep the real return conventions (checked against the real bindings elsewhere): None, False and -1 instead of
exceptions, tuples that start with an error code, host memory behind integer pointers. The "engine" answers with a
fixed softmax of each picture's mean, so that tests see which rows came back.
"""

import ctypes
import hashlib
import json
import sys
import types
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serving.engine.cuda
from serving.bundle.manifest import Precision
from serving.engine.tensorrt_cache import PLAN, SIDECAR, Sidecar

CROP, CLASSES = 8, 2
RELEASE, NAME = "11.4.0.106", "NVIDIA Fake GPU"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class CudaCode(IntEnum):
    """The error codes that the code knows, and two that it only quotes."""

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
    """What happens on the fake host; tests set what is to go wrong."""

    count_error: CudaCode = CudaCode.cudaSuccess
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
    captured: int = 0
    launched: int = 0
    log: list[str] = field(default_factory=list)
    capturing: dict[int, list[Any]] = field(default_factory=dict)
    """Stream -> the work that is recorded there instead of done."""
    allocated: dict[int, Any] = field(default_factory=dict)
    """Address -> memory that was not freed yet."""
    built: int = 0

    def plan(self, max_batch: int) -> bytes:
        return json.dumps({"min": 1, "max": max_batch}).encode()

    def write_engine(self, engines: Path, onnx_sha256: str, precision: Precision, *, max_batch: int) -> Path:
        """An engine in the cache, as a build on this host leaves it."""
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

    functions = {
        "cudaGetDeviceCount": lambda: (gpu.count_error, None if gpu.count_error else gpu.devices),
        "cudaGetDeviceProperties": lambda index: (
            ok,
            types.SimpleNamespace(name=NAME.encode() + b"\0" * 8, major=9, minor=0),
        ),
        "cudaMemGetInfo": lambda: (ok, gpu.memory, 2 * gpu.memory),
        "cudaSetDevice": lambda index: (ok,),
        "cudaStreamCreateWithFlags": lambda flags: allocate(1),
        "cudaStreamDestroy": free,
        "cudaStreamSynchronize": lambda stream: (ok,),
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


def fake_tensorrt(gpu: FakeGpu) -> types.ModuleType:
    """The classes of `tensorrt` that are used."""
    trt = types.ModuleType("tensorrt")
    trt.__version__ = RELEASE

    class ILogger:
        Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2})

    class IProgressMonitor:
        pass

    class Parser:
        def __init__(self, network: Any, logger: Any) -> None:
            self.num_errors = len(gpu.parse_errors)

        def parse_from_file(self, model: str) -> bool:
            assert Path(model).stat().st_size > 0
            return not gpu.parse_errors

        def get_error(self, index: int) -> Any:
            node, operator, description = gpu.parse_errors[index]
            return types.SimpleNamespace(
                node_name=lambda: node, node_operator=lambda: operator, desc=lambda: description
            )

    class Cache:
        def serialize(self) -> bytes:
            return b"timings"

    class Config:
        progress_monitor: Any = None
        builder_optimization_level = 3

        def set_memory_pool_limit(self, pool: str, size: int) -> None:
            gpu.log.append(f"workspace {size >> 20} MiB")

        def clear_flag(self, flag: str) -> None:
            gpu.log.append(f"without {flag}")

        def add_optimization_profile(self, profile: Any) -> int:
            self.shapes = profile.shapes
            return gpu.profile_index

        def create_timing_cache(self, blob: bytes) -> Cache | None:
            gpu.log.append(f"timings of {len(blob)} bytes")
            return None if blob and gpu.stale_timings else Cache()

        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
            return True

        def get_timing_cache(self) -> Cache:
            return Cache()

    class Profile:
        def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
            self.shapes = (least, best, most)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            if gpu.builder_fails:
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int = 0) -> object:
            return object()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            gpu.built += 1
            monitor = config.progress_monitor
            monitor.phase_start("Building", None, gpu.steps)
            for step in range(gpu.steps):
                if gpu.during_build:
                    gpu.during_build()
                if not monitor.step_complete("Building", step):
                    return None
            monitor.phase_finish("Building")
            if gpu.build_fails:
                self.logger.log(ILogger.Severity.ERROR, "no tactic fits the workspace")
                return None
            return gpu.plan(config.shapes[2][0])

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shape = shape
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if gpu.refuse_execution:
                return False
            assert self.memory in gpu.allocated, "executed without scratch memory"
            if stream in gpu.capturing:
                gpu.capturing[stream].append(self.compute)
            else:
                self.compute()
            return True

        def set_device_memory(self, memory: int, size: int) -> None:
            assert size <= len(gpu.allocated[memory])
            self.memory = memory

        def compute(self) -> None:
            size = int(np.prod(self.shape))
            images = np.frombuffer(gpu.allocated[self.addresses["images"]], np.uint8, size).reshape(self.shape)
            answers = gpu.answers(images)
            ctypes.memmove(self.addresses["probabilities"], answers.ctypes.data, answers.nbytes)

    class Engine:
        num_io_tensors = 2

        def __init__(self, least: int, most: int) -> None:
            self.shapes = [(batch, CROP, CROP, 3) for batch in (least, least, most)]
            self.device_memory_size_v2 = gpu.context_bytes

        def get_tensor_name(self, index: int) -> str:
            return ("images", "probabilities")[index]

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return self.shapes

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, CLASSES)

        def create_execution_context(self, strategy: str) -> Context | None:
            assert strategy == "USER_MANAGED"
            return None if gpu.no_context else Context()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            try:
                shapes = json.loads(plan)
            except ValueError:
                self.logger.log(ILogger.Severity.ERROR, "serialization assertion failed")
                return None
            return Engine(shapes["min"], shapes["max"])

    for made in (ILogger, IProgressMonitor, Builder, Runtime):
        setattr(trt, made.__name__, made)
    trt.OnnxParser = Parser
    trt.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED")
    trt.BuilderFlag = types.SimpleNamespace(TF32="TF32")
    return trt


def install(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `import tensorrt` and `from cuda.bindings import runtime` find the fakes."""
    runtime = fake_cudart(gpu)
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, cuda.bindings = runtime, bindings
    for module in (cuda, bindings, runtime, fake_tensorrt(gpu)):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(serving.engine.cuda, "DEVICE_FILES", (Path(__file__),))
