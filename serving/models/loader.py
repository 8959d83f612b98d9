"""A bundle in; a served model, warm and with its plan, out."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.workers import WorkerOptions
from serving.bundle.manifest import Bundle, BundleError, Manifest, Precision
from serving.engine.base import Engine
from serving.engine.selection import EngineChoice, EngineName, choose_engine
from serving.engine.single_row import SingleRowEngine, SpreadEngine
from serving.engine.tensorrt_cache import EngineBuildError
from serving.image.decode import Limits
from serving.models.classifier import Classifier
from serving.models.layout import (
    LayoutOptions,
    TunedLayout,
    candidates,
    count_workers,
    moderate_batch,
    plan_key,
    read_plan,
    unmeasured,
    worker_cpus,
    write_plan,
)
from serving.models.observers import ObserverFactory
from serving.models.tuning import search
from serving.system.cpus import available_cpus, bindable_cpus
from serving.system.memory import return_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How models are loaded and what their requests may cost."""

    layout: LayoutOptions
    layouts: Path | None
    """Folder that keeps measured plans; None keeps none."""
    engine: EngineName = "auto"
    precision: Precision | None = None
    """None: what the engine runs fastest, of what the bundle has."""
    max_rows: int
    """Most views in flight, for each model."""
    limits: Limits
    make_observer: ObserverFactory | None = None
    """Makes what hears of each version's work; None if nobody listens."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version, ready to answer. Immutable: another version is another object.

    Whoever holds it, or is in a call of its classifier, may use it: its engines are closed when nobody does any more.
    """

    manifest: Manifest
    engine: str
    """What computes it, for people."""
    classifier: Classifier
    class_index: Mapping[str, int]
    """Class name -> index in the network's output."""
    batcher: DynamicBatcher = field(repr=False)
    engines: Sequence[Engine] = field(repr=False)
    runtime: str
    """"onnxruntime-cpu", "onnxruntime-cuda" or "tensorrt"."""
    precision: str
    """"fp32", "fp16", "int8" or "int8-trt"."""
    engine_reason: str
    """Why this runtime, precision and plan, for people."""
    chosen: TunedLayout

    def close(self) -> None:
        """Compute what is in flight, then stop, and return what the engines hold; none of it may be used after."""
        self.batcher.close()
        _close(self.engines)


def load_model(
    bundle: Bundle, options: ServingOptions, *, alike: ServedModel | None = None, quiet: bool = True
) -> ServedModel:
    """Load one bundle, and compute the smallest and the largest batch once, so that no caller waits for that.

    Args:
        alike: an earlier version, whose plan is taken over if the network is the same.
        quiet: whether nothing else is served now: only then can a plan be measured.

    Raises:
        BundleError: if its parts do not agree, the model does not compute what it should, or what was asked for
            cannot be had here.
    """
    manifest = bundle.manifest
    choice = choose_engine(bundle, options.engine, options.precision)
    cpus = available_cpus()
    admission = Admission(options.max_rows)
    try:
        with ExitStack() as opened:
            chosen = _choose_plan(bundle, choice, options, cpus, alike, quiet)
            plan = chosen.plan
            engines = [*choice.make(plan)]
            opened.callback(_close, engines)
            for engine in engines:
                _warm_up(engine, bundle)
            if plan.single_row_threads and choice.make_single_row:
                bound = bindable_cpus()
                several = choice.make_single_row(plan.single_row_threads, bound)
                opened.callback(several.close)
                _warm_up(several, bundle)
                spread = SpreadEngine(several, bound, lambda: admission.rows)
                engines = [SingleRowEngine(engine, spread) for engine in engines]
            opened.pop_all()
    except (EngineBuildError, MemoryError) as error:
        raise BundleError(f"{bundle.folder} cannot be loaded: {error}") from error
    observer = options.make_observer(manifest) if options.make_observer else None
    workers = WorkerOptions(
        count=count_workers(plan, cpus=cpus, on_gpu=choice.on_gpu), cpus=worker_cpus(plan, on_gpu=choice.on_gpu)
    )
    batcher = DynamicBatcher(engines, admission, workers, observer)
    model = ServedModel(
        manifest=manifest,
        engine=f"{choice.variant}, {choice.runtime.replace('-', ' ')}, {plan}",
        classifier=Classifier(
            manifest.preprocess,
            batcher,
            options.limits,
            adaptive_threshold=manifest.adaptive_threshold,
            observer=observer,
        ),
        class_index={name: index for index, name in enumerate(manifest.classes)},
        batcher=batcher,
        engines=engines,
        runtime=choice.runtime,
        precision=choice.variant,
        engine_reason=f"{choice.reason}; plan: {chosen.reason}",
        chosen=chosen,
    )
    logger.info(
        "%s: %s, batches of at most %d; %s", manifest.resource, model.engine, plan.max_batch_size, model.engine_reason
    )
    return model


def _choose_plan(
    bundle: Bundle, choice: EngineChoice, options: ServingOptions, cpus: int, alike: ServedModel | None, quiet: bool
) -> TunedLayout:
    asked, manifest = options.layout, bundle.manifest
    plans = candidates(asked, cpus=cpus, on_gpu=choice.on_gpu, max_batch_size=choice.max_batch_size)
    if len(plans) == 1:
        return TunedLayout(plan=plans[0], reason=f"given: {asked.given}")
    key = plan_key(choice.model_hash, choice.runtime, choice.device, cpus, asked)
    if options.layouts and (kept := read_plan(options.layouts, key)) and kept.plan in plans:
        return kept
    if (
        alike
        and (alike.runtime, alike.precision) == (choice.runtime, choice.variant)
        and (alike.manifest.arch, alike.manifest.preprocess.crop) == (manifest.arch, manifest.preprocess.crop)
        and alike.chosen.plan in plans
    ):
        return TunedLayout(plan=alike.chosen.plan, reason=f"that of {alike.manifest.resource}, the same network")
    moderate = moderate_batch(choice.precision, on_gpu=choice.on_gpu)
    default = unmeasured(plans, moderate, on_gpu=choice.on_gpu)
    if not quiet:
        return TunedLayout(plan=default, reason="not measured, since other models are being served; a new start does")
    if not asked.seconds:
        return TunedLayout(plan=default, reason="not measured: --plan-seconds 0")
    chosen = search(
        plans,
        choice.make,
        manifest.preprocess,
        cpus=cpus,
        on_gpu=choice.on_gpu,
        moderate=moderate,
        latency_bound_ms=asked.latency_bound_ms,
        seconds=asked.seconds,
    )
    return_memory()
    if options.layouts:
        write_plan(options.layouts, key, chosen)
    return chosen


def _close(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.close()


def _warm_up(engine: Engine, bundle: Bundle) -> None:
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
