"""Engines of TensorRT and of TensorRT for RTX, on a GPU.

Several instances share one plan. Each has its own stream, buffers and execution contexts, and is used by one thread at
a time. Only uint8 pixels and probabilities are copied between host and GPU, through pinned memory. Batches are padded
to the next power of two; the copies and kernels of each such size are one CUDA graph.
"""

import ctypes
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME
from serving.engine.base import EngineLayout, bucket_sizes
from serving.engine.cuda import DEVICE, CudaError, CudaGraph, call, free_memory, load_cudart, raise_if_lost
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary, make_logger
from serving.engine.tensorrt_rtx import TENSORRT

logger = logging.getLogger(__name__)


class LoadedPlan:
    """A plan on a GPU, which its instances share."""

    def __init__(self, plan: bytes, library: TensorRTLibrary = TENSORRT, kernel_cache: Path | None = None) -> None:
        """Deserialise a plan that has been checked.

        Args:
            library: the one that built it.
            kernel_cache: file of the kernels that the library compiled on this host; None to keep none.

        Raises:
            EngineBuildError: if TensorRT rejects it, or its tensors are not those of the engine contract.
            CudaError: if the GPU cannot be used.
        """
        trt = library.load()
        call(load_cudart().cudaSetDevice, DEVICE)
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise EngineBuildError(
                f"{library.title} rejects the plan ({self._logger.reason()}): build it again with python -m export "
                "engine"
            )
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        if sorted(names) != sorted([INPUT_NAME, OUTPUT_NAME]):
            raise EngineBuildError(f"the plan's tensors are {names}; expected {INPUT_NAME} and {OUTPUT_NAME}")
        least, _, most = self.engine.get_tensor_profile_shape(INPUT_NAME, 0)
        self.min_batch, self.max_batch = int(least[0]), int(most[0])
        self.input_shape = tuple(int(size) for size in most[1:])
        self.classes = int(self.engine.get_tensor_shape(OUTPUT_NAME)[1])
        self.contexts = library.contexts(trt, self.engine, kernel_cache)

    def make_engines(self, layout: EngineLayout) -> list["TensorRTEngine"]:
        """Make the instances of a layout.

        Raises:
            EngineBuildError: if they do not fit into the GPU's memory; all of them are closed then.
        """
        made: list[TensorRTEngine] = []
        try:
            for _ in range(layout.instances):
                made.append(TensorRTEngine(self, min(layout.max_batch_size, self.max_batch)))
                self.contexts.save()
        except BaseException:
            for instance in made:
                instance.close()
            raise
        return made

    def reason(self) -> str:
        """The last errors that TensorRT logged."""
        return str(self._logger.reason())


@dataclass
class _Bucket:
    """One batch size, ready to run."""

    rows: int
    context: Any
    graph: CudaGraph | None = None


class TensorRTEngine:
    """One instance of a plan; an `Engine`. `run` is called by one thread at a time."""

    def __init__(self, plan: LoadedPlan, max_batch_size: int | None = None) -> None:
        """Allocate a stream and buffers, and run each batch size once, so that no request waits for that.

        Args:
            max_batch_size: most rows of a call, at most those of the plan; None for those of the plan.

        Raises:
            EngineBuildError: if the GPU has too little free memory, with both figures, or TensorRT does not run.
        """
        self._plan = plan
        self.max_batch_size = max(max_batch_size or plan.max_batch, plan.min_batch)
        self._cudart = cudart = load_cudart()
        self._owned: list[tuple[Any, Any]] = []
        self._buckets: list[_Bucket] = []
        call(cudart.cudaSetDevice, DEVICE)
        needed, free = int(plan.engine.device_memory_size_v2), free_memory()
        if needed > free:
            raise EngineBuildError(
                f"the engine needs {needed / 2**20:,.0f} MiB of GPU memory and {free / 2**20:,.0f} MiB are free "
                f"({plan.reason()}): use fewer instances, or build it with a smaller --max-batch"
            )
        try:
            self._stream = call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)
            self._owned.append((cudart.cudaStreamDestroy, self._stream))
            self._allocate_buffers(needed)
            for rows in bucket_sizes(plan.min_batch, self.max_batch_size):
                self._buckets.append(self._prepare(rows))
        except CudaError as error:
            self.close()
            raise EngineBuildError(f"the engine's buffers cannot be allocated: {error}") from error
        except BaseException:
            self.close()
            raise

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch.

        Args:
            images_NHWC: uint8 `[N, H, W, 3]`, 1 to `max_batch_size` of them.

        Returns:
            float32 `[N, K]`.

        Raises:
            EngineBuildError: for a batch outside of that, or if TensorRT fails.
            CudaError: if a copy or the GPU fails.
            DeviceLost: if the GPU fails every further call too.
        """
        count = len(images_NHWC)
        plan, cudart = self._plan, self._cudart
        if not 1 <= count <= self.max_batch_size or images_NHWC.shape[1:] != plan.input_shape:
            raise EngineBuildError(
                f"a batch of shape {images_NHWC.shape} was given; the engine takes 1 to {self.max_batch_size} of "
                f"{plan.input_shape}"
            )
        bucket = next(bucket for bucket in self._buckets if bucket.rows >= count)
        self._images[:count] = images_NHWC  # the rows after them are of an earlier batch; their results are not used
        try:
            call(cudart.cudaSetDevice, DEVICE)  # each thread has a current device of its own
            if bucket.graph is not None:
                bucket.graph.launch()
            else:
                self._enqueue(bucket)
            call(cudart.cudaStreamSynchronize, self._stream)
        except Exception:
            raise_if_lost()
            raise
        return self._probabilities[:count].copy()

    def close(self) -> None:
        """Free graphs, contexts, memory and stream, in the order that CUDA requires; a second call does nothing."""
        if self._owned:
            call(self._cudart.cudaSetDevice, DEVICE)
            with suppress(CudaError):  # a stream that failed fails again here, and is freed anyway
                call(self._cudart.cudaStreamSynchronize, self._owned[0][1])
        for bucket in self._buckets:
            if bucket.graph is not None:
                bucket.graph.close()
        self._buckets = []
        while self._owned:
            free, handle = self._owned.pop()
            call(free, handle)

    def __enter__(self) -> "TensorRTEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, rows: int) -> _Bucket:
        """Make the context and the graph of a batch size, after a first run."""
        plan = self._plan
        context = plan.contexts.create()
        if context is None:
            raise EngineBuildError(f"TensorRT made no execution context: {plan.reason()}")
        if self._scratch is not None:
            context.set_device_memory(int(self._scratch), int(plan.engine.device_memory_size_v2))
        for name, address in self._device.items():
            if not context.set_tensor_address(name, int(address)):
                raise EngineBuildError(f"TensorRT rejects a buffer for {name}: {plan.reason()}")
        shape = (rows, *plan.input_shape)
        if not context.set_input_shape(INPUT_NAME, shape):
            raise EngineBuildError(f"TensorRT rejects the shape {shape}: {plan.reason()}")
        bucket = _Bucket(rows, context)
        self._enqueue(bucket)
        call(self._cudart.cudaStreamSynchronize, self._stream)
        try:
            if not plan.contexts.can_capture(context, int(self._stream)):
                raise EngineBuildError("TensorRT says that this engine cannot be captured")
            bucket.graph = CudaGraph(self._stream, lambda: self._enqueue(bucket))
        except (CudaError, EngineBuildError) as error:
            logger.warning("batches of %d run without a CUDA graph, which is slower: %s", rows, error)
        return bucket

    def _enqueue(self, bucket: _Bucket) -> None:
        """Enqueue the copy of a bucket's images to the GPU, the computation, and the copy of the results back."""
        cudart = self._cudart
        images, probabilities = self._images[: bucket.rows], self._probabilities[: bucket.rows]
        to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(
            cudart.cudaMemcpyAsync,
            *(self._device[INPUT_NAME], images.ctypes.data, images.nbytes, to_device, self._stream),
        )
        if not bucket.context.execute_async_v3(int(self._stream)):
            raise EngineBuildError(f"TensorRT could not run a batch of {bucket.rows}: {self._plan.reason()}")
        call(
            cudart.cudaMemcpyAsync,
            *(probabilities.ctypes.data, self._device[OUTPUT_NAME], probabilities.nbytes, to_host, self._stream),
        )

    def _allocate_buffers(self, scratch: int) -> None:
        """Allocate what all batch sizes share: images and results on both sides, and `scratch` bytes for kernels."""
        cudart, plan, most = self._cudart, self._plan, self.max_batch_size
        images = int(np.prod([most, *plan.input_shape]))
        probabilities = 4 * most * plan.classes
        self._scratch = self._allocate(cudart.cudaMalloc, cudart.cudaFree, scratch) if scratch else None
        self._device = {
            INPUT_NAME: self._allocate(cudart.cudaMalloc, cudart.cudaFree, images),
            OUTPUT_NAME: self._allocate(cudart.cudaMalloc, cudart.cudaFree, probabilities),
        }
        self._images = self._host(images, ctypes.c_uint8).reshape(most, *plan.input_shape)
        self._probabilities = self._host(probabilities, ctypes.c_float).reshape(most, plan.classes)

    def _allocate(self, allocate: Any, free: Any, size: int) -> Any:
        pointer = call(allocate, size)
        self._owned.append((free, pointer))
        return pointer

    def _host(self, size: int, kind: type[Any]) -> NDArray[Any]:
        """Allocate pinned memory as a flat array: copies from pageable memory are not asynchronous."""
        pointer = self._allocate(self._cudart.cudaMallocHost, self._cudart.cudaFreeHost, size)
        count = size // ctypes.sizeof(kind)
        return np.ctypeslib.as_array((kind * count).from_address(int(pointer)))
