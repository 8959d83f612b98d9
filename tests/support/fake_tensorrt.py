"""A fake of the module `tensorrt`, for tests of control flow on hosts without a GPU; see fake_gpu.py."""

import ctypes
import json
import sys
import types
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serving.engine.cuda
from serving.engine.tensorrt_rtx import ALL_CAPABILITIES
from tests.support.fake_gpu import CLASSES, CROP, RELEASE, RTX_RELEASE, FakeGpu, fake_cudart


def fake_tensorrt(gpu: FakeGpu) -> types.ModuleType:
    """The classes of `tensorrt` that are used."""
    trt = types.ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)
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

    class IBuilderConfig:
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

        def create_builder_config(self) -> Any:
            return trt.IBuilderConfig()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
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

    for made in (ILogger, IProgressMonitor, IBuilderConfig, Builder, Runtime):
        setattr(trt, made.__name__, made)
    trt.OnnxParser = Parser
    trt.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED")
    trt.BuilderFlag = types.SimpleNamespace(TF32="TF32")
    trt.ProfilingVerbosity = types.SimpleNamespace(DETAILED="DETAILED")
    return trt


def fake_tensorrt_rtx(gpu: FakeGpu) -> types.ModuleType:
    """The classes of `tensorrt_rtx_bindings` that are used."""
    trt = fake_tensorrt(gpu)
    trt.__name__, trt.__version__ = "tensorrt_rtx_bindings", RTX_RELEASE
    engine_of = trt.Runtime.deserialize_cuda_engine

    class IBuilderConfig(trt.IBuilderConfig):  # type: ignore[misc, name-defined]
        num_compute_capabilities = 0

        def set_flag(self, flag: str) -> None:
            gpu.log.append(f"with {flag}")

        def set_compute_capability(self, capability: str, index: int) -> bool:
            return index < self.num_compute_capabilities

    class RuntimeCache:
        def deserialize(self, blob: bytes) -> bool:
            gpu.log.append(f"kernels of {len(blob)} bytes")
            return not gpu.stale_kernels

        def serialize(self) -> bytes:
            return gpu.kernels

    class RuntimeConfig:
        dynamic_shapes_kernel_specialization_strategy = cuda_graph_strategy = ""

        def set_execution_context_allocation_strategy(self, strategy: str) -> None:
            self.strategy = strategy

        def create_runtime_cache(self) -> RuntimeCache:
            return RuntimeCache()

        def set_runtime_cache(self, cache: RuntimeCache) -> bool:
            return True

    class Runtime(trt.Runtime):  # type: ignore[misc, name-defined]
        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            engine = engine_of(self, plan)
            if engine is None:
                return None
            make_context = engine.create_execution_context

            def create_execution_context(config: RuntimeConfig) -> Any:
                assert config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
                context = make_context(config.strategy)
                if context is not None:
                    context.is_stream_capturable = lambda stream: True
                return context

            engine.create_runtime_config = RuntimeConfig
            engine.create_execution_context = create_execution_context
            return engine

    trt.IBuilderConfig, trt.Runtime = IBuilderConfig, Runtime
    trt.BuilderFlag.REQUIRE_USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"
    trt.ComputeCapability = types.SimpleNamespace(
        **{f"SM{number.replace('.', '')}": number for number in ALL_CAPABILITIES}
    )
    trt.CudaGraphStrategy = types.SimpleNamespace(DISABLED="DISABLED")
    trt.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="EAGER")
    return trt


def install(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `import tensorrt` and `from cuda.bindings import runtime` find the fakes."""
    runtime = fake_cudart(gpu)
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, cuda.bindings = runtime, bindings
    for module in (cuda, bindings, runtime, fake_tensorrt(gpu)):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(serving.engine.cuda, "DEVICE_FILES", (Path(__file__),))


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A fake GPU with TensorRT, on any host."""
    gpu = FakeGpu()
    install(gpu, monkeypatch)
    return gpu


@pytest.fixture
def fake_rtx_gpu(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A fake GPU of compute capability 8.9 with TensorRT for RTX, and without TensorRT."""
    fake_gpu.compute_capability = "8.9"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", fake_tensorrt_rtx(fake_gpu))
    return fake_gpu
