"""TensorRT for RTX: engines that are built on any host, also without a GPU, and run on several GPU models.

The first run on a GPU compiles kernels for it ("just in time"), which takes seconds; they are kept in a file.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from serving.engine.tensorrt_library import Contexts, EngineBuildError, Flavor, TensorRTLibrary
from serving.system.files import write_atomically

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""Compute capabilities that engines are built for by default: Ampere, Ada and Blackwell, such as A10, L4, RTX 5090."""
ALL_CAPABILITIES = ("7.5", *CAPABILITIES, "12.1")
_NEWER_FROM = "12.0"
"""An engine for it runs on GPUs with a higher compute capability too."""

logger = logging.getLogger(__name__)


class _RtxContexts(Contexts):
    """Execution contexts with the kernels that were compiled before."""

    def __init__(self, trt: Any, engine: Any, cache: Path | None) -> None:
        super().__init__(trt, engine, cache)
        self._file = cache
        self._runtime = runtime = engine.create_runtime_config()
        runtime.set_execution_context_allocation_strategy(self._strategy)
        # Batch sizes are captured as CUDA graphs, once: kernels that are compiled later would not be used.
        runtime.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        runtime.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        self._kernels = kernels = runtime.create_runtime_cache()
        self._saved = b""
        if cache is not None:
            with suppress(FileNotFoundError):
                self._saved = cache.read_bytes()
        if self._saved and not kernels.deserialize(self._saved):
            logger.warning("%s was written by another GPU or release; kernels are compiled again", cache)
        if not runtime.set_runtime_cache(kernels):
            raise EngineBuildError("TensorRT for RTX does not take a cache for compiled kernels")

    def create(self) -> Any:
        return self.engine.create_execution_context(self._runtime)

    def can_capture(self, context: Any, stream: int) -> bool:
        return bool(context.is_stream_capturable(stream))

    def save(self) -> None:
        if self._file is None:
            return
        content = bytes(self._kernels.serialize())
        if content == self._saved:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, content)
        except OSError as error:  # the next start compiles them again
            logger.warning("%s cannot be written (%s): the next start compiles kernels again", self._file, error)
        self._saved = content


class TensorRTForRTX(TensorRTLibrary):
    """TensorRT for RTX 1.x."""

    flavor: ClassVar[Flavor] = "rtx"
    title: ClassVar[str] = "TensorRT for RTX"
    release: ClassVar[str] = "1.7"
    module: ClassVar[str] = "tensorrt_rtx_bindings"
    install: ClassVar[str] = "pip install 'pawserve[tensorrt-rtx]'"
    portable: ClassVar[bool] = True
    contexts: ClassVar[type[Contexts]] = _RtxContexts

    def prepare_build(self, config: Any, logger: Any, timings: bytes, capabilities: Sequence[str]) -> None:
        """Set the compute capabilities that the engine is for. A timing cache would have no effect, and needs a GPU.

        Raises:
            EngineBuildError: if the library does not know one.
        """
        trt = self.load()
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # CUDA graphs cannot be captured otherwise
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            target = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if target is None or not config.set_compute_capability(target, index):
                raise EngineBuildError(
                    f"TensorRT for RTX does not build for compute capability {capability}: {logger.reason()}"
                )

    def read_timings(self, config: Any) -> bytes:
        return b""


def runs_on(capabilities: Sequence[str], gpu: str) -> bool:
    """Whether an engine for some compute capabilities runs on a GPU's."""
    if gpu in capabilities:
        return True
    return _NEWER_FROM in capabilities and _number(gpu) > _number(_NEWER_FROM)


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


TENSORRT, RTX = TensorRTLibrary(), TensorRTForRTX()
LIBRARIES: dict[Flavor, TensorRTLibrary] = {"tensorrt": TENSORRT, "rtx": RTX}


def default_flavor() -> Flavor:
    """TensorRT where it is installed, otherwise TensorRT for RTX."""
    return "tensorrt" if TENSORRT.is_installed() else "rtx"
