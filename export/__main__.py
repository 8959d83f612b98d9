"""The commands of `python -m export`: a run in; a bundle, engines or a Triton repository out."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from export.checks.checks import Tolerances
from serving.bundle.manifest import Precision, open_bundle
from serving.engine.tensorrt_cache import default_engines, find_engines
from training.command import Command, run_command
from training.console import say


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Export a run to ONNX, prove that it answers as trained, and write a bundle."""

    run: Path
    """A finished run of `python -m training fit`."""
    models: Path
    """Folder of models; the next free version of NAME is written in it."""
    name: str
    """The model's name: a-z, 0-9, '.', '_' and '-'."""
    data: Path | None = None
    """Where the run's photos are now, if they have moved."""
    precisions: tuple[Literal["fp32", "fp16", "int8", "int8-trt"], ...] = ("fp32",)
    """Which files to write. int8 is for ONNX Runtime on a CPU, int8-trt for TensorRT; the others are for both."""
    calibration: Path | None = None
    """Folder of photos to calibrate INT8 on, like those to be served. Default: the run's training photos."""
    calibration_photos: int = 128
    """How many of them are looked at, chosen evenly over the classes."""
    tolerances: Annotated[Tolerances, tyro.conf.arg(name="")] = field(default_factory=Tolerances)


def _bundle(options: Bundle) -> None:
    from export.bundle import PAGE, Calibration, export_bundle  # torch takes seconds to import
    from export.page import parity_row
    from training.runs.run import open_run

    folder = export_bundle(
        open_run(options.run),
        options.models,
        options.name,
        options.data,
        targets=options.precisions,
        tolerances=options.tolerances,
        calibration=Calibration(calibration=options.calibration, calibration_photos=options.calibration_photos),
    )
    for artifact in open_bundle(folder).manifest.artifacts:
        file, _, megabytes, right, same, largest, _, second, _ = parity_row(artifact)
        say(f"{file}: {megabytes} MB; {right}; {same} same answers, max |Δp| {largest}; second runtime: {second}")
    say(f"wrote {folder}; look at {folder / PAGE}")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Build a TensorRT engine for this host's GPU; prove that it answers as ONNX does."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION."""
    precision: Precision = "fp16"
    """Which of the bundle's files to build."""
    photos: Path | None = None
    """Folder of photos for the gate. Default: noise; then only that the engine runs is shown, not how well."""
    min_batch: int = 1
    """Fewest views that the engine takes at once."""
    opt_batch: int = 16
    """The batch size that the engine is tuned for."""
    max_batch: int = 64
    """Most views that the engine takes at once."""
    workspace_mib: int = 2048
    """Most device memory that a layer's tactic may use."""
    optimization_level: int = 3
    """0 builds fastest, 5 searches longest."""
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""
    json: bool = False
    """Print the sidecar and the measurements as JSON."""


def _engine(options: Engine) -> None:
    from export.engine_command import build_and_check
    from export.tensorrt import EngineOptions

    result = build_and_check(
        open_bundle(options.bundle),
        options.precision,
        EngineOptions(
            min_batch=options.min_batch,
            opt_batch=options.opt_batch,
            max_batch=options.max_batch,
            workspace_mib=options.workspace_mib,
            optimization_level=options.optimization_level,
        ),
        options.engines or default_engines(),
        options.photos,
    )
    if options.json:
        print(json_module.dumps(result))


@dataclass(frozen=True, kw_only=True)
class Triton:
    """Write a Triton model repository from a bundle."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION."""
    out: Path
    """Folder of Triton's models; NAME is written in it and must not be there yet."""
    backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    """tensorrt takes the engine that `python -m export engine` built on this host."""
    precision: Precision = "int8"
    """Which of the bundle's files to serve."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where instances run. The tensorrt backend needs gpu."""
    instances: int = 1
    """Instances a device."""
    max_batch: int = 64
    """Most views that Triton gives the model at once."""
    max_queue_delay_us: int = 0
    """How long the first request of a batch waits for others, in microseconds."""
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""


def _triton(options: Triton) -> None:
    from export.triton import TritonOptions, write_repository

    folder = write_repository(
        open_bundle(options.bundle),
        options.out,
        TritonOptions(
            backend=options.backend,
            precision=options.precision,
            device=options.device,
            instances=options.instances,
            max_batch=options.max_batch,
            max_queue_delay_us=options.max_queue_delay_us,
        ),
        options.engines or default_engines(),
    )
    say(f"wrote {folder}; serve it with tritonserver --model-repository {options.out}")


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what is in a bundle, check its files, and list this host's engines of it."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION."""
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""
    json: bool = False
    """Print the manifest, with the engines under "engines", as JSON."""


def _inspect(options: Inspect) -> None:
    bundle = open_bundle(options.bundle)
    for artifact in bundle.manifest.artifacts:
        bundle.read(artifact)
    hashes = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    engines = [sidecar for _, sidecar in find_engines(options.engines or default_engines(), hashes)]
    if options.json:
        facts = asdict(bundle.manifest) | {"engines": [asdict(engine) for engine in engines]}
        print(json_module.dumps(facts, ensure_ascii=False))
    else:
        from export.inspect import print_bundle

        print_bundle(bundle, engines)


COMMANDS = {
    "bundle": Command(Bundle, _bundle),
    "engine": Command(Engine, _engine),
    "triton": Command(Triton, _triton),
    "inspect": Command(Inspect, _inspect),
}


def main(arguments: Sequence[str]) -> int:
    return run_command("python -m export", "From a run to a bundle that can be deployed.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
