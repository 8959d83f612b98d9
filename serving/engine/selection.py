"""Choice of the runtime and precision that compute a bundle.

A runtime that was asked for is used, or the model fails to load with a message that says what to do. "auto" uses the
fastest runtime that works on this host, and reports why the faster ones do not.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnxruntime as ort

from serving.bundle.manifest import Bundle, BundleError, Precision
from serving.engine.base import Engine, EngineLayout
from serving.engine.cuda import CudaError, Gpu, find_gpu, has_gpu_driver
from serving.engine.onnx import CUDA_PROVIDER, OnnxModel, choose_precision
from serving.engine.tensorrt_cache import EngineBuildError, default_engines, find_engines, read_plan

EngineName = Literal["auto", "cpu", "cuda", "tensorrt"]
TENSORRT_PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")
"""The fastest in TensorRT first; each engine has passed the accuracy check when it was built."""
CUDA_PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")
"""The fastest in ONNX Runtime on CUDA first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The runtime, precision and file that compute a version."""

    runtime: Literal["onnxruntime-cpu", "onnxruntime-cuda", "tensorrt"]
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

    @property
    def on_gpu(self) -> bool:
        return self.runtime != "onnxruntime-cpu"

    @property
    def variant(self) -> str:
        """The precision; "int8-trt" for TensorRT's INT8, which has a file of its own."""
        return "int8-trt" if (self.runtime, self.precision) == ("tensorrt", "int8") else self.precision


def choose_engine(bundle: Bundle, engine: EngineName, precision: Precision | None) -> EngineChoice:
    """Choose the runtime and precision that compute a bundle.

    Args:
        engine: "auto" for a TensorRT engine that was built on this host, else ONNX Runtime on CUDA, else on the CPU.
        precision: None for the precision of the bundle that is fastest in that runtime.

    Raises:
        BundleError: if what was asked for is not there, or does not work on this host; the message says what to do.
    """
    if engine == "cpu":
        return _on_cpu(bundle, precision, "--engine cpu")
    if engine == "auto":
        return _automatic(bundle, precision)
    try:
        gpu = find_gpu()
        return (_in_tensorrt if engine == "tensorrt" else _on_cuda)(bundle, precision, gpu, f"--engine {engine}")
    except (CudaError, EngineBuildError, BundleError) as error:
        raise BundleError(f"--engine {engine} cannot be used for {bundle.manifest.resource}: {error}") from error


def _automatic(bundle: Bundle, precision: Precision | None) -> EngineChoice:
    if not has_gpu_driver():
        return _on_cpu(bundle, precision, "this host has no NVIDIA GPU")
    try:
        gpu = find_gpu()
    except CudaError as error:
        return _on_cpu(bundle, precision, f"the GPU cannot be used: {error}")
    obstacles: list[str] = []
    for choose in (_in_tensorrt, _on_cuda):
        try:
            return choose(bundle, precision, gpu, "; ".join([f"{gpu.name} is there", *obstacles]))
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
    )


def _on_cuda(bundle: Bundle, precision: Precision | None, gpu: Gpu, reason: str) -> EngineChoice:
    if precision == "int8":
        raise BundleError(
            "ONNX Runtime computes no INT8 on a GPU: use --engine tensorrt, --precision fp16, or --engine cpu"
        )
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise CudaError(
            "this ONNX Runtime has no CUDA: pip uninstall onnxruntime, then pip install 'pawserve[gpu]', which brings "
            "onnxruntime-gpu"
        )
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


def _in_tensorrt(bundle: Bundle, precision: Precision | None, gpu: Gpu, reason: str) -> EngineChoice:
    # imported here, since only hosts with a GPU have TensorRT
    from serving.engine.tensorrt import LoadedPlan, load_tensorrt

    release = str(load_tensorrt().__version__)
    others = []
    for chosen in (precision,) if precision else TENSORRT_PRECISIONS:
        try:
            artifact = bundle.artifact(chosen, "tensorrt")
        except BundleError:
            if precision:
                raise
            continue
        found = find_engines(default_engines(), {artifact.sha256})
        for folder, sidecar in sorted(found, key=lambda engine: -engine[1].max_batch):
            here = (gpu.name, gpu.compute_capability, release)
            if (sidecar.gpu, sidecar.compute_capability, sidecar.tensorrt) != here:
                others.append(f"{sidecar.gpu} with TensorRT {sidecar.tensorrt}")
                continue
            content, _ = read_plan(folder, gpu=gpu.name, compute_capability=gpu.compute_capability, tensorrt=release)
            plan = LoadedPlan(content, gpu)
            return EngineChoice(
                runtime="tensorrt",
                precision=chosen,
                reason=f"{reason}; {_why(chosen, precision, 'the fastest that an engine was built for')}",
                model_hash=sidecar.plan_sha256,
                device=f"{gpu.name} ({gpu.compute_capability})",
                max_batch_size=plan.max_batch,
                make=plan.make_engines,
            )
    elsewhere = f" (there are some for {', '.join(sorted(set(others)))})" if others else ""
    raise EngineBuildError(
        f"{default_engines()} has no TensorRT engine of {bundle.folder} for {gpu.name} and TensorRT {release}"
        f"{elsewhere}; build one with python -m export engine {bundle.folder} --precision {precision or 'fp16'}"
    )


def _why(chosen: Precision, given: Precision | None, fastest: str) -> str:
    return f"--precision {chosen}" if given else f"{chosen} is {fastest}"
