"""A TensorRT plan in; probabilities for batches of views out, computed on the GPU.

One engine may have several instances: each has its own execution context, stream and buffers, and is used by one
thread at a time. What crosses the bus is uint8 pixels one way and probabilities the other, through pinned memory.
"""

import ctypes
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle import INPUT_NAME, OUTPUT_NAME
from serving.cuda import CudaError, Gpu, call, free_memory, load_cudart
from serving.engine_cache import EngineError

TENSORRT = "11.4"
"""The release that this code was written against."""


def load_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        EngineError: if it is not installed, or of another release.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT cannot be imported ({error}): pip install 'pawserve[gpu]', with the extra package index that "
            "NVIDIA's install guide for TensorRT names"
        ) from error
    release = str(trt.__version__)
    if release.split(".")[0] != TENSORRT.split(".")[0]:
        raise EngineError(f"TensorRT {release} is installed; this pawserve needs {TENSORRT.split('.')[0]}.x")
    return trt


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors and warnings: TensorRT's calls return None or False, and the reason is logged."""

    class StoringLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(msg)

        def reason(self) -> str:
            """What was logged last, for the end of a sentence."""
            return "; ".join(self.errors[-3:]) or "TensorRT gave no reason"

    return StoringLogger()


class LoadedPlan:
    """A plan on a GPU, shared by its instances."""

    def __init__(self, plan: bytes, gpu: Gpu) -> None:
        """Deserialise a plan that has been checked.

        Raises:
            EngineError: if TensorRT refuses it, or its tensors are not the engine contract's.
            CudaError: if the GPU cannot be used.
        """
        trt = load_tensorrt()
        self.gpu = gpu
        self._cudart = load_cudart()
        call(self._cudart.cudaSetDevice, gpu.index)
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise EngineError(
                f"TensorRT refuses the plan ({self._logger.reason()}): build it again with python -m export engine"
            )
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        if sorted(names) != sorted([INPUT_NAME, OUTPUT_NAME]):
            raise EngineError(f"the plan's tensors are {names}; expected {INPUT_NAME} and {OUTPUT_NAME}")
        least, _, most = self.engine.get_tensor_profile_shape(INPUT_NAME, 0)
        self.min_batch, self.max_batch = int(least[0]), int(most[0])
        self.input_shape = tuple(int(size) for size in most[1:])
        self.classes = int(self.engine.get_tensor_shape(OUTPUT_NAME)[1])

    def reason(self) -> str:
        """What TensorRT logged last."""
        return str(self._logger.reason())


class TensorRTEngine:
    """One instance of a plan. `run` is called by one thread at a time; `close` frees what it holds on the GPU."""

    def __init__(self, plan: LoadedPlan) -> None:
        """Allocate a context, a stream and buffers for the largest batch.

        Raises:
            EngineError: if the GPU's memory does not suffice, with both figures.
        """
        self._plan = plan
        self.max_batch_size = plan.max_batch
        self._cudart = cudart = load_cudart()
        self._owned: list[tuple[Any, Any]] = []
        call(cudart.cudaSetDevice, plan.gpu.index)
        needed, free = int(plan.engine.device_memory_size_v2), free_memory()
        self._context: Any = plan.engine.create_execution_context() if needed <= free else None
        if self._context is None:
            raise EngineError(
                f"the engine needs {needed / 2**20:,.0f} MiB of GPU memory and {free / 2**20:,.0f} MiB are free "
                f"({plan.reason()}): use fewer instances, or build it with a smaller --max-batch"
            )
        try:
            self._stream = call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)
            self._owned.append((cudart.cudaStreamDestroy, self._stream))
            images = int(np.prod([plan.max_batch, *plan.input_shape]))
            probabilities = 4 * plan.max_batch * plan.classes
            self._device = {
                INPUT_NAME: self._allocate(cudart.cudaMalloc, cudart.cudaFree, images),
                OUTPUT_NAME: self._allocate(cudart.cudaMalloc, cudart.cudaFree, probabilities),
            }
            self._images = self._host(images, ctypes.c_uint8).reshape(plan.max_batch, *plan.input_shape)
            self._probabilities = self._host(probabilities, ctypes.c_float).reshape(plan.max_batch, plan.classes)
        except CudaError as error:
            self.close()
            raise EngineError(f"the engine's buffers cannot be allocated: {error}") from error
        for name, address in self._device.items():
            if not self._context.set_tensor_address(name, int(address)):
                self.close()
                raise EngineError(f"TensorRT refuses a buffer for {name}: {plan.reason()}")

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch.

        Args:
            images_NHWC: uint8 `[N, H, W, 3]`, `plan.min_batch` to `max_batch_size` of them.

        Returns:
            float32 `[N, K]`.

        Raises:
            EngineError: for a batch outside the engine's profile, or if TensorRT fails.
            CudaError: if a copy or the GPU fails.
        """
        count = len(images_NHWC)
        plan, cudart = self._plan, self._cudart
        if not plan.min_batch <= count <= plan.max_batch or images_NHWC.shape[1:] != plan.input_shape:
            raise EngineError(
                f"a batch of shape {images_NHWC.shape} was given; the engine takes {plan.min_batch} to "
                f"{plan.max_batch} of {plan.input_shape}"
            )
        call(cudart.cudaSetDevice, plan.gpu.index)  # each thread has a current device of its own
        if not self._context.set_input_shape(INPUT_NAME, images_NHWC.shape):
            raise EngineError(f"TensorRT refuses the shape {images_NHWC.shape}: {plan.reason()}")
        self._images[:count] = images_NHWC
        answers_NK = self._probabilities[:count]
        to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(
            cudart.cudaMemcpyAsync,
            *(self._device[INPUT_NAME], self._images.ctypes.data, images_NHWC.nbytes, to_device, self._stream),
        )
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT could not run a batch of {count}: {plan.reason()}")
        call(
            cudart.cudaMemcpyAsync,
            *(answers_NK.ctypes.data, self._device[OUTPUT_NAME], answers_NK.nbytes, to_host, self._stream),
        )
        call(cudart.cudaStreamSynchronize, self._stream)
        return answers_NK.copy()

    def close(self) -> None:
        """Free context, memory and stream, in the order that CUDA wants; a second call does nothing."""
        if self._owned:
            call(self._cudart.cudaStreamSynchronize, self._owned[0][1])
        self._context = None
        while self._owned:
            free, handle = self._owned.pop()
            call(free, handle)

    def __enter__(self) -> "TensorRTEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _allocate(self, allocate: Any, free: Any, size: int) -> Any:
        pointer = call(allocate, size)
        self._owned.append((free, pointer))
        return pointer

    def _host(self, size: int, kind: type[Any]) -> NDArray[Any]:
        """Pinned memory as a flat array: copies from pageable memory would wait for the driver."""
        pointer = self._allocate(self._cudart.cudaMallocHost, self._cudart.cudaFreeHost, size)
        count = size // ctypes.sizeof(kind)
        return np.ctypeslib.as_array((kind * count).from_address(int(pointer)))
