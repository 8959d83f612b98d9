"""Choice of the runtime and precision that compute a bundle.

A runtime that was asked for is used, or the model fails to load with a message that says what to do. "auto" uses the
fastest runtime that works on this host, and reports why the faster ones do not.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from serving.bundle.manifest import Bundle, BundleError, Precision
from serving.engine.base import Engine, EngineLayout
from serving.engine.cuda import CudaError, Gpu, find_gpu, has_gpu_driver
from serving.engine.onnx import OnnxModel, choose_precision
from serving.engine.onnx_package import why_no_cuda
from serving.engine.separate import SeparateEngine
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary
from serving.engine.tensorrt_rtx import RTX, TENSORRT

EngineName = Literal["auto", "cpu", "cuda", "tensorrt", "tensorrt-rtx"]
CUDA_PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")
"""The fastest in ONNX Runtime on CUDA first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The runtime, precision and file that compute a version."""

    runtime: Literal["onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"]
    precision: Precision
    reason: str
    """Why this one, for people."""
    model_hash: str
    """SHA-256 of the file that runs."""
    device: str
    """The GPU, or "cpu"."""
    max_batch_size: int | None
    """Most rows that the file takes; None for any number."""
    make: Callable[[EngineLayout], Sequence[Engine]]
    """Makes the instances of a layout; raises BundleError or EngineBuildError."""
    make_single_row: Callable[[int, Sequence[int]], Engine] | None = None
    """Makes the instance for single requests, see OnnxModel.make_single_row_engine; None on a GPU."""
    make_separate: Callable[[int], SeparateEngine] | None = None
    """Makes an instance in a process of its own, for batches of at most so many rows; None on a GPU."""

    @property
    def on_gpu(self) -> bool:
        return self.runtime != "onnxruntime-cpu"

    @property
    def variant(self) -> str:
        """The precision; "int8-trt" for TensorRT's INT8, which has a file of its own."""
        return "int8-trt" if self.precision == "int8" and self.runtime.startswith("tensorrt") else self.precision


def choose_engine(
    bundle: Bundle, engine: EngineName, precision: Precision | None, kernels: Path | None = None
) -> EngineChoice:
    """Choose the runtime and precision that compute a bundle.

    Args:
        engine: "auto" for a TensorRT engine that was built on this host, else an engine of TensorRT for RTX, else ONNX
            Runtime on CUDA, else on the CPU.
        precision: None for the precision of the bundle that is fastest in that runtime.
        kernels: folder where TensorRT for RTX keeps the kernels that it compiles here; None to keep none.

    Raises:
        BundleError: if what was asked for is not there, or does not work on this host; the message says what to do.
    """
    if engine == "cpu":
        return _on_cpu(bundle, precision, "--engine cpu")
    if engine == "auto":
        return _automatic(bundle, precision, kernels)
    try:
        gpu, reason = find_gpu(), f"--engine {engine}"
        if engine == "cuda":
            return _on_cuda(bundle, precision, gpu, reason)
        return _in_tensorrt(bundle, precision, gpu, reason, RTX if engine == "tensorrt-rtx" else TENSORRT, kernels)
    except (CudaError, EngineBuildError, BundleError) as error:
        raise BundleError(f"--engine {engine} cannot be used for {bundle.manifest.resource}: {error}") from error


def _automatic(bundle: Bundle, precision: Precision | None, kernels: Path | None) -> EngineChoice:
    if not has_gpu_driver():
        return _on_cpu(bundle, precision, "this host has no NVIDIA GPU")
    try:
        gpu = find_gpu()
    except CudaError as error:
        return _on_cpu(bundle, precision, f"the GPU cannot be used: {error}")
    obstacles: list[str] = []
    attempts: tuple[Callable[[str], EngineChoice], ...] = (
        lambda reason: _in_tensorrt(bundle, precision, gpu, reason, TENSORRT, kernels),
        lambda reason: _in_tensorrt(bundle, precision, gpu, reason, RTX, kernels),
        lambda reason: _on_cuda(bundle, precision, gpu, reason),
    )
    for attempt in attempts:
        try:
            return attempt("; ".join([f"{gpu.name} is there", *obstacles]))
        except (CudaError, EngineBuildError, BundleError) as error:
            obstacles.append(str(error))
            logger.warning("%s: %s", bundle.manifest.resource, error)
    return _on_cpu(bundle, precision, f"{gpu.name} is there, but unused: " + "; ".join(obstacles))


def _on_cpu(bundle: Bundle, precision: Precision | None, reason: str) -> EngineChoice:
    chosen = precision or choose_precision(bundle.manifest)
    artifact = bundle.artifact(chosen)
    model = OnnxModel(bundle, artifact)
    return EngineChoice(
        runtime="onnxruntime-cpu",
        precision=chosen,
        reason=f"{reason}; {_why(chosen, precision, 'the fastest on a CPU that the bundle has')}",
        model_hash=artifact.sha256,
        device="cpu",
        max_batch_size=None,
        make=model.make_engines,
        make_single_row=model.make_single_row_engine,
        make_separate=model.make_separate_engine,
    )


def _on_cuda(bundle: Bundle, precision: Precision | None, gpu: Gpu, reason: str) -> EngineChoice:
    if precision == "int8":
        raise BundleError(
            "ONNX Runtime computes no INT8 on a GPU: use --engine tensorrt, --precision fp16, or --engine cpu"
        )
    if problem := why_no_cuda():
        raise CudaError(problem)
    ort.preload_dlls()
    present = {artifact.precision for artifact in bundle.manifest.artifacts if artifact.runtime == "onnxruntime"}
    fastest: Precision = next((each for each in CUDA_PRECISIONS if each in present), "fp16")
    chosen = precision or fastest
    artifact = bundle.artifact(chosen)
    model = OnnxModel(bundle, artifact, "cuda")
    model.make_engines(EngineLayout(instances=1, threads=1, max_batch_size=1))  # raises if the model does not load
    return EngineChoice(
        runtime="onnxruntime-cuda",
        precision=chosen,
        reason=f"{reason}; {_why(chosen, precision, 'the fastest on CUDA that the bundle has')}",
        model_hash=artifact.sha256,
        device=f"{gpu.name} ({gpu.compute_capability})",
        max_batch_size=None,
        make=model.make_engines,
    )


def _in_tensorrt(
    bundle: Bundle,
    precision: Precision | None,
    gpu: Gpu,
    reason: str,
    library: TensorRTLibrary,
    kernels: Path | None,
) -> EngineChoice:
    library.load()  # most hosts have at most one of them
    if precision:
        bundle.artifact(precision, "tensorrt")  # raises if the bundle has none, whatever engines there are
    # imported here, since only hosts with a GPU need it
    from serving.engine.tensorrt_choice import choose_plan

    chosen = choose_plan(bundle, precision, gpu, library, kernels)
    return EngineChoice(
        runtime="tensorrt-rtx" if library is RTX else "tensorrt",
        precision=chosen.sidecar.precision,
        reason=f"{reason}; {chosen.reason}",
        model_hash=chosen.sidecar.plan_sha256,
        device=f"{gpu.name} ({gpu.compute_capability})",
        max_batch_size=chosen.plan.max_batch,
        make=chosen.plan.make_engines,
    )


def _why(chosen: Precision, given: Precision | None, fastest: str) -> str:
    return f"--precision {chosen}" if given else f"{chosen} is {fastest}"
