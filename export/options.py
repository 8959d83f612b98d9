"""The options of each command of `python -m export` and their ranges. Nothing here loads torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from export.checks.checks import Tolerances
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Precision
from serving.engine.tensorrt_library import Flavor

Target = Literal["fp32", "fp16", "int8", "int8-trt"]
TARGETS: tuple[Target, ...] = get_args(Target)
MAX_LICENSE = 100
_FLAT = tyro.conf.arg(name="")  # the flags of a nested dataclass get no prefix


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images from which INT8 takes the ranges of its activations."""

    calibration: Path | None = None
    """Folder of images to calibrate INT8 on, like those to be served. Default: the run's training images."""
    calibration_images: int = 128
    """How many of them are used, chosen evenly over the classes."""

    def __post_init__(self) -> None:
        if not 16 <= self.calibration_images <= 100_000:
            raise ValueError(f"calibration_images is {self.calibration_images}; it must lie between 16 and 100,000")


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """Content of the model card that is not in the run."""

    license: str = ""
    """Licence of the model, for its card (README.md): an identifier such as apache-2.0 or cc-by-4.0, or any name.
    Default: unknown."""
    intended_use: str = ""
    """What the model is for, for its card."""

    def __post_init__(self) -> None:
        if not self.license.isprintable() or len(self.license) > MAX_LICENSE:
            raise ValueError(f"--license is {self.license[:40]!r}; give a name of at most {MAX_LICENSE} characters")


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """Export a run to ONNX, check the files against the network, write a bundle."""

    run: Path
    """A finished run of `python -m training fit`."""
    models: Path
    """Folder of models; the next free version of NAME is written in it."""
    name: str
    """The model's name: a-z, 0-9, '.', '_' and '-'."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    precisions: tuple[Target, ...] = ("fp32",)
    """Which files to write. int8 is for ONNX Runtime on a CPU, int8-trt for TensorRT; the others are for both."""
    require: tuple[Target, ...] = ()
    """Which of the precisions, besides fp32, must pass their checks for exit code 0. A precision that fails is left out
    of the bundle."""
    engines: tuple[Literal["rtx"], ...] = ()
    """rtx builds engines with TensorRT for RTX into the bundle, which needs no GPU."""
    engine_precisions: tuple[Precision, ...] = ()
    """Which files the engines are built from. Default: fp16 if the bundle has it, otherwise int8, otherwise fp32."""
    plan: Annotated[PlanOptions, _FLAT] = field(default_factory=PlanOptions)
    report: bool = True
    """Copy the run's report, which shows some of its images, into the bundle: the server's page links it."""
    card: Annotated[CardOptions, _FLAT] = field(default_factory=CardOptions)
    calibration: Annotated[Calibration, _FLAT] = field(default_factory=Calibration)
    tolerances: Annotated[Tolerances, _FLAT] = field(default_factory=Tolerances)

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield "--run", self.run
        if self.data:
            yield "--data", self.data


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Build a TensorRT engine, and check it against ONNX Runtime on a GPU."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION, or models/NAME for its newest version."""
    precision: Literal["auto"] | Precision = "auto"
    """Which of the bundle's files to build; auto is fp16 if the bundle has it, otherwise int8, otherwise fp32."""
    flavor: Literal["auto"] | Flavor = "auto"
    """tensorrt builds for this host's GPU; rtx is TensorRT for RTX, which builds on any host for several GPUs; auto is
    tensorrt where it is installed, and rtx otherwise."""
    images: Path | None = None
    """Folder of images for the parity check. Default: noise, which shows that the engine runs, but not its accuracy."""
    plan: Annotated[PlanOptions, _FLAT] = field(default_factory=PlanOptions)
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""
    json: bool = False
    """Print the sidecar and the measurements as JSON."""


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """Write a Triton model repository from a bundle."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION, or models/NAME for its newest version."""
    out: Path
    """Triton's model repository; NAME is written in it and must not exist yet."""
    backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    """tensorrt takes the engine that `python -m export engine` built on this host."""
    precision: Precision = "int8"
    """Which of the bundle's files to serve."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where instances run. The tensorrt backend needs gpu."""
    instances: int = 1
    """Instances per device."""
    max_batch: int = 64
    """Most views that Triton gives the model at once."""
    max_queue_delay_us: int = 0
    """How long the first request of a batch waits for others, in microseconds; 0 batches only what is queued anyway."""
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""

    def __post_init__(self) -> None:
        if self.backend == "tensorrt" and self.device != "gpu":
            raise ValueError("the tensorrt backend runs on GPUs only: add --device gpu")
        for name, low, high in (("instances", 1, 256), ("max_batch", 1, 4096), ("max_queue_delay_us", 0, 10_000_000)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between {low} and {high:,}")


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Show what a bundle contains, check its files, list this host's engines."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION, or models/NAME for its newest version."""
    engines: Path | None = None
    """Where engines are kept. Default: $PAWSERVE_ENGINES, or the user's cache folder."""
    json: bool = False
    """Print the manifest, with the engines under "engines", as JSON."""
