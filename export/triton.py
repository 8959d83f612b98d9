"""A bundle in; a model repository for Triton Inference Server out: `OUT/NAME/{config.pbtxt,labels.txt,1/model.*}`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Bundle, Precision
from serving.engine.cuda import find_gpu
from serving.engine.tensorrt import load_tensorrt
from serving.engine.tensorrt_cache import EngineBuildError, find_engines, read_plan
from serving.system.files import new_folder, sync_folder

Backend = Literal["onnxruntime", "tensorrt"]
LABELS = "labels.txt"


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton is to serve the model."""

    backend: Backend = "onnxruntime"
    precision: Precision = "int8"
    device: Literal["cpu", "gpu"] = "cpu"
    instances: int = 1
    """Instances a device."""
    max_batch: int = 64
    max_queue_delay_us: int = 0
    """How long the first request of a batch waits for others, in microseconds; 0 batches only what waits anyway."""

    def __post_init__(self) -> None:
        if self.backend == "tensorrt" and self.device != "gpu":
            raise ValueError("the tensorrt backend runs on GPUs only: add --device gpu")
        for name, low, high in (("instances", 1, 256), ("max_batch", 1, 4096), ("max_queue_delay_us", 0, 10_000_000)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between {low} and {high:,}")


def write_repository(bundle: Bundle, out: Path, options: TritonOptions, engines: Path) -> Path:
    """Write the repository's folder of one model, in one step.

    Args:
        out: folder of Triton's models; must not hold the model yet.
        engines: cache of engines, for the tensorrt backend.

    Returns:
        `out/NAME`.

    Raises:
        ValueError: if the model is there already.
        BundleError: if the bundle lacks the precision, or its file is damaged.
        EngineBuildError, CudaError: if the tensorrt backend is asked for and this host has no engine that fits.
    """
    manifest = bundle.manifest
    place = out / manifest.name
    if place.exists():
        raise ValueError(f"{place} is there already, and nothing is overwritten: remove it, or give another --out")
    max_batch = options.max_batch
    if options.backend == "tensorrt":
        content, largest = _plan(bundle, options.precision, engines)
        if max_batch > largest:
            raise ValueError(f"max_batch is {max_batch}, and the engine was built for at most {largest}")
        file = "model.plan"
    else:
        content, file = bundle.read(bundle.artifact(options.precision)), "model.onnx"
    with new_folder(out, manifest.name) as folder:
        (folder / str(manifest.version)).mkdir()
        (folder / str(manifest.version) / file).write_bytes(content)
        (folder / LABELS).write_text("".join(f"{name}\n" for name in manifest.classes), encoding="utf-8")
        (folder / "config.pbtxt").write_text(_config(bundle, options), encoding="utf-8")
        sync_folder(folder)
        folder.rename(place)
    return place


def _plan(bundle: Bundle, precision: Precision, engines: Path) -> tuple[bytes, int]:
    """The engine of this host with the largest batch, and that batch."""
    sha256 = bundle.artifact(precision, "tensorrt").sha256
    gpu, release = find_gpu(), str(load_tensorrt().__version__)
    here = (gpu.name, gpu.compute_capability, release)
    fitting = [
        (sidecar.max_batch, folder)
        for folder, sidecar in find_engines(engines, {sha256})
        if (sidecar.gpu, sidecar.compute_capability, sidecar.tensorrt) == here
    ]
    if not fitting:
        raise EngineBuildError(
            f"{engines} has no {precision} engine of {bundle.manifest.resource} for this host's {gpu.name} and "
            f"TensorRT {release}: build one with python -m export engine {bundle.folder} --precision {precision}"
        )
    largest, folder = max(fitting)
    plan, _ = read_plan(folder, gpu=gpu.name, compute_capability=gpu.compute_capability, tensorrt=release)
    return plan, largest


def _config(bundle: Bundle, options: TritonOptions) -> str:
    """The model configuration, in protobuf's text format."""
    manifest = bundle.manifest
    crop = manifest.preprocess.crop
    # Triton names a compiled engine's and an ONNX file's runtime in two different fields
    runtime = 'platform: "tensorrt_plan"' if options.backend == "tensorrt" else 'backend: "onnxruntime"'
    preferred = sorted({batch for batch in (4, 8, 16, 32, options.max_batch) if batch <= options.max_batch})
    return f"""# {manifest.resource}, {options.precision}: uint8 RGB pixels [N, {crop}, {crop}, 3] to probabilities.
name: "{manifest.name}"
{runtime}
max_batch_size: {options.max_batch}
input [
  {{
    name: "{INPUT_NAME}"
    data_type: TYPE_UINT8
    dims: [ {crop}, {crop}, 3 ]
  }}
]
output [
  {{
    name: "{OUTPUT_NAME}"
    data_type: TYPE_FP32
    dims: [ {len(manifest.classes)} ]
    label_filename: "{LABELS}"
  }}
]
dynamic_batching {{
  preferred_batch_size: {preferred}
  max_queue_delay_microseconds: {options.max_queue_delay_us}
}}
instance_group [
  {{
    count: {options.instances}
    kind: {"KIND_GPU" if options.device == "gpu" else "KIND_CPU"}
  }}
]
version_policy: {{ specific {{ versions: [ {manifest.version} ] }} }}
"""
