"""`python -m export triton`: write a bundle as a model repository, `OUT/NAME/{config.pbtxt,labels.txt,1/model.*}`."""

from export.options import TritonOptions
from serving.bundle.folder import open_newest
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Bundle, Manifest
from serving.engine.cuda import find_gpu
from serving.engine.tensorrt_cache import default_engines, find_engines, read_plan
from serving.engine.tensorrt_library import EngineBuildError
from serving.engine.tensorrt_rtx import TENSORRT
from serving.system.files import new_folder, sync_folder
from training.console import say

LABELS = "labels.txt"


def run(options: TritonOptions) -> None:
    """Write one model's folder of the repository, `OUT/NAME`, in one step.

    Raises:
        ValueError: if `OUT/NAME` exists.
        BundleError: if the bundle lacks the precision, or its file was changed.
        EngineBuildError, CudaError: if the tensorrt backend is chosen and this host has no engine that fits.
    """
    bundle = open_newest(options.bundle)
    manifest = bundle.manifest
    place = options.out / manifest.name
    if place.exists():
        raise ValueError(f"{place} exists and is not overwritten: remove it, or give another --out")
    if options.backend == "tensorrt":
        content, largest = _largest_plan(bundle, options)
        if options.max_batch > largest:
            raise ValueError(f"max_batch is {options.max_batch}; the engine was built for at most {largest}")
        file = "model.plan"
    else:
        content, file = bundle.read(bundle.artifact(options.precision)), "model.onnx"
    with new_folder(options.out, manifest.name) as folder:
        (folder / str(manifest.version)).mkdir()
        (folder / str(manifest.version) / file).write_bytes(content)
        labels = [" ".join(name.splitlines()) + "\n" for name in manifest.classes]  # a line each
        (folder / LABELS).write_text("".join(labels), encoding="utf-8")
        (folder / "config.pbtxt").write_text(_model_config(manifest, options), encoding="utf-8")
        sync_folder(folder)
        folder.rename(place)
    say(f"wrote {place}; serve it with tritonserver --model-repository {options.out}")


def _largest_plan(bundle: Bundle, options: TritonOptions) -> tuple[bytes, int]:
    """The plan of this host's engine with the largest batch, and that batch."""
    engines = options.engines or default_engines()
    sha256 = bundle.artifact(options.precision, "tensorrt").sha256
    gpu, release = find_gpu(), TENSORRT.version()
    fitting = [
        (folder, sidecar)
        for folder, sidecar in find_engines(engines, {sha256}, "tensorrt")[0]
        if sidecar.misfit(gpu, release) is None
    ]
    if not fitting:
        raise EngineBuildError(
            f"{engines} has no {options.precision} engine of {bundle.manifest.resource} for this host's {gpu.name} and "
            f"TensorRT {release}: build one with python -m export engine {bundle.folder} "
            f"--precision {options.precision}"
        )
    folder, sidecar = max(fitting, key=lambda engine: (engine[1].max_batch, engine[0]))
    return read_plan(folder, sidecar), sidecar.max_batch


def _model_config(manifest: Manifest, options: TritonOptions) -> str:
    """The model configuration in protobuf's text format."""
    crop = manifest.preprocess.crop
    # Triton names a compiled engine's and an ONNX file's runtime in two different fields
    runtime = 'platform: "tensorrt_plan"' if options.backend == "tensorrt" else 'backend: "onnxruntime"'
    preferred = sorted({batch for batch in (4, 8, 16, 32, options.max_batch) if batch <= options.max_batch})
    # a client that averages views needs them: serving/image/averaging.py has the formula
    temperatures = ", ".join(f"{views}: {value:.6g}" for views, value in sorted(manifest.temperatures.items()))
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
parameters {{
  key: "temperatures"
  value: {{ string_value: "{temperatures}" }}
}}
version_policy: {{ specific {{ versions: [ {manifest.version} ] }} }}
"""
