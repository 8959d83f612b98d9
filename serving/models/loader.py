"""Loading of a bundle: choice of the engine and its layout, and a first run of each engine."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.workers import WorkerOptions
from serving.bundle.manifest import REPORT, Bundle, BundleError, Manifest, Precision
from serving.engine.base import Engine, EngineLayout
from serving.engine.selection import EngineChoice, EngineName, choose_engine
from serving.engine.separate import PausableEngine, Unpausable
from serving.engine.single_row import SingleRowEngine, SpreadEngine
from serving.engine.tensorrt_library import EngineBuildError
from serving.image.decode import Limits
from serving.models.classifier import Classifier, ModelObserver
from serving.models.drift import DriftWindow
from serving.models.layout import (
    LayoutOptions,
    TunedLayout,
    count_workers,
    default_layout,
    layout_key,
    read_layout,
    worker_cpus,
)
from serving.system.cpus import available_cpus, bindable_cpus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How models are loaded, and limits of their requests."""

    layout: LayoutOptions = LayoutOptions()
    layouts: Path | None = None
    """Folder of the layouts that `tune` has measured; None for none."""
    kernels: Path | None = None
    """Folder of the kernels that TensorRT for RTX compiles for this host's GPU; None to keep none."""
    engine: EngineName = "auto"
    precision: Precision | None = None
    """None for the precision of the bundle that is fastest on the engine."""
    max_rows: int
    """Most views in flight, for each model."""
    limits: Limits
    make_observer: Callable[[Manifest], ModelObserver] | None = None
    """Makes the observer of each version, from `observability`; None for no observer."""
    on_device_lost: Callable[[str], None] | None = None
    """Is called with the reason, in any thread, when a device fails every further call of this process."""
    cpu_limit: float | None = None
    """CPUs that a scheduler has reserved for this process without enforcing it; None for no limit."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One loaded version. Compared by identity: the same version may be loaded again."""

    manifest: Manifest
    engine: str
    """Engine and layout, for people."""
    classifier: Classifier
    class_index: Mapping[str, int]
    """Class name -> index in the network's output."""
    engines: Sequence[Engine] = field(repr=False)
    shadow_engine: PausableEngine | None = field(repr=False)
    """One more instance, for the images that it classifies as a shadow; None if it is none."""
    runtime: str
    """"onnxruntime-cpu", "onnxruntime-cuda", "tensorrt" or "tensorrt-rtx"."""
    precision: str
    """"fp32", "fp16", "int8" or "int8-trt"."""
    engine_reason: str
    """Why this runtime, precision and layout, for people."""
    layout: EngineLayout
    tuned: TunedLayout | None
    """The measured figures of the layout; None if it was not measured."""
    report: Path
    """The report of the training; the file need not exist."""
    drift: DriftWindow
    """Its last predictions, compared with those on the validation images."""

    def close(self) -> None:
        """Compute what is in flight, then stop and release the engines. Nothing may be classified afterwards."""
        self.classifier.close()
        for engine in self.engines:
            engine.close()
        if self.shadow_engine:
            self.shadow_engine.close()


def load_model(
    bundle: Bundle, options: ServingOptions, *, previous: ServedModel | None = None, shadow: bool = False
) -> ServedModel:
    """Load one bundle, and compute the smallest and the largest batch once, so that no request waits for that.

    Args:
        previous: an earlier version, whose tuned layout is used if the network is the same.
        shadow: whether it gets an instance for its work as a shadow version.

    Raises:
        BundleError: if its parts do not agree, the model does not compute what it should, or what was asked for cannot
            be used here.
    """
    manifest = bundle.manifest
    choice = choose_engine(bundle, options.engine, options.precision, options.kernels)
    cpus, bindable = available_cpus(limit=options.cpu_limit), bindable_cpus(limit=options.cpu_limit)
    layout, reason, tuned = _choose_layout(manifest, choice, options, cpus, previous)
    admission = Admission(options.max_rows)
    try:
        with ExitStack() as opened:
            engines = [*choice.make(layout)]
            for engine in engines:
                opened.callback(engine.close)
            for engine in engines:
                _warm_up(engine, bundle)
            shadow_engine = _make_shadow_engine(choice, layout, bundle, opened) if shadow else None
            if layout.single_row_threads and choice.make_single_row:
                several = choice.make_single_row(layout.single_row_threads, bindable)
                opened.callback(several.close)
                _warm_up(several, bundle)
                spread = SpreadEngine(several, bindable, lambda: admission.rows)
                engines = [SingleRowEngine(engine, spread) for engine in engines]
            opened.pop_all()
    except (EngineBuildError, MemoryError) as error:
        raise BundleError(f"{bundle.folder} cannot be loaded: {error}") from error
    observer = options.make_observer(manifest) if options.make_observer else None
    workers = WorkerOptions(
        count=count_workers(layout, cpus=cpus, on_gpu=choice.on_gpu),
        cpus=worker_cpus(layout, bindable, on_gpu=choice.on_gpu),
    )
    model = ServedModel(
        manifest=manifest,
        engine=f"{choice.variant}, {choice.runtime.replace('-', ' ')}, {layout}",
        classifier=Classifier(
            manifest.preprocess,
            DynamicBatcher(engines, admission, workers, observer, options.on_device_lost),
            options.limits,
            temperatures=manifest.temperatures,
            adaptive_threshold=manifest.adaptive_threshold,
            observer=observer,
        ),
        class_index={name: index for index, name in enumerate(manifest.classes)},
        engines=engines,
        shadow_engine=shadow_engine,
        runtime=choice.runtime,
        precision=choice.variant,
        engine_reason=f"{choice.reason}; layout: {reason}",
        layout=layout,
        tuned=tuned,
        report=bundle.folder / REPORT,
        drift=DriftWindow(manifest.validation),
    )
    logger.info(
        "%s: %s, batches of at most %d; %s", manifest.resource, model.engine, layout.max_batch_size, model.engine_reason
    )
    return model


def _choose_layout(
    manifest: Manifest, choice: EngineChoice, options: ServingOptions, cpus: int, previous: ServedModel | None
) -> tuple[EngineLayout, str, TunedLayout | None]:
    """The layout, the reason for people, and its figures if it was measured."""
    default = default_layout(
        options.layout,
        cpus=cpus,
        on_gpu=choice.on_gpu,
        precision=choice.precision,
        max_batch_size=choice.max_batch_size,
    )
    if given := str(options.layout):
        return default, given, None
    key = layout_key(choice.model_hash, choice.runtime, choice.device, cpus)
    if options.layouts and (tuned := read_layout(options.layouts, key)):
        return tuned.layout, "measured by `tune`", tuned
    if (
        previous
        and previous.tuned
        and (previous.runtime, previous.precision) == (choice.runtime, choice.variant)
        and (previous.manifest.arch, previous.manifest.preprocess.crop) == (manifest.arch, manifest.preprocess.crop)
        and previous.layout.max_batch_size <= (choice.max_batch_size or previous.layout.max_batch_size)
    ):
        return previous.layout, f"that of {previous.manifest.resource}, the same network", previous.tuned
    return default, "the default; `tune` measures which one is the fastest", None


def _make_shadow_engine(
    choice: EngineChoice, layout: EngineLayout, bundle: Bundle, opened: ExitStack
) -> PausableEngine:
    """An instance whose work can be stopped: on a CPU in a process of its own, of the lowest priority."""
    if choice.make_separate is None:
        (engine,) = choice.make(EngineLayout(instances=1, threads=1, max_batch_size=layout.max_batch_size))
        opened.callback(engine.close)
        _warm_up(engine, bundle)
        return Unpausable(engine)
    try:
        separate = choice.make_separate(layout.max_batch_size)
    except OSError as error:
        raise BundleError(f"the process of the shadow version {bundle.manifest.resource}: {error}") from error
    opened.callback(separate.close)
    _warm_up(separate, bundle)
    separate.lower_priority()
    return separate


def _warm_up(engine: Engine, bundle: Bundle) -> None:
    """Compute a batch of one row and a full batch, and check the output."""
    crop, classes = bundle.manifest.preprocess.crop, len(bundle.manifest.classes)
    for rows in (1, engine.max_batch_size):
        try:
            probabilities_NK = engine.run(np.full((rows, crop, crop, 3), 127, np.uint8))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"{bundle.folder}: a batch of {rows} cannot be computed: {error}") from error
        sums_N = probabilities_NK.sum(axis=1)
        if probabilities_NK.shape != (rows, classes) or not np.allclose(sums_N, 1, atol=0.01):
            raise BundleError(
                f"{bundle.folder}: a batch of {rows} gives {probabilities_NK.shape} with sums {sums_N}, "
                f"expected ({rows}, {classes}) with rows that sum to 1"
            )
