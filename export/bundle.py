"""`python -m export bundle`: export a finished run to a checked bundle `models/NAME/VERSION/`."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adaptive import threshold_by_agreement
from export.calibrate import METHOD, check_count, choose_images, list_folder, measure_ranges
from export.cards.model_card import render_card
from export.cards.page import parity_row, render_page
from export.checks.checks import CheckError
from export.checks.verify import ParityReference, verify
from export.engine_files import build_engine_files
from export.graphs.onnx import DeployedModel, reparameterize, to_onnx
from export.inference import load_views, predict_each
from export.mixed_precision import Converted, export_fp16, export_int8
from export.options import TARGETS, BundleOptions, CardOptions, Target
from serving.bundle.manifest import CARD, MANIFEST, REPORT, Artifact, Manifest, Runtime
from serving.bundle.model_version import check_name
from serving.bundle.validation import ValidationPredictions
from serving.engine.onnx import CPU_PRECISIONS, Compute, load_graph
from serving.engine.tensorrt_rtx import RTX
from serving.system.files import new_folder, sync_folder
from training.console import progress, say
from training.data.images import LabelledImage
from training.data.layout import DataError
from training.data.shards import ShardImage
from training.hardware import limit_threads
from training.networks.model import Classifier, Network
from training.runs.run import Run, open_run
from training.versions import versions

PAGE = "bundle.html"
INT8_RUNTIMES: dict[Target, Runtime] = {"int8": "onnxruntime", "int8-trt": "tensorrt"}
MAX_MISSING_PART = 0.01
"""Part of the validation images that may have been deleted since the training."""
Exported = tuple[Artifact, bytes]
"""A file's entry in the manifest, and its graph."""


def run(options: BundleOptions) -> None:
    """Export a run, check each graph against the trained network, and write a bundle under the next free version.

    A precision that fails is left out.

    Raises:
        RunError, DataError: if the run is incomplete, or its images are missing or changed.
        CheckError: if no graph passed, and then nothing is written; or, with the bundle written, if fp32 or a precision
            of `--require` is missing, or an engine could not be built.
        EngineBuildError: if engines are asked for and TensorRT for RTX is not installed.
        ValueError: for options that cannot be used, such as a folder of models that cannot be written.
        OSError: if writing fails later; then nothing is left under the version's name.
    """
    check_name(options.name)
    if not options.precisions:
        raise ValueError(f"no precisions were given; choose of {', '.join(TARGETS)}")
    if absent := set(options.require) - set(options.precisions):
        raise ValueError(f"--require names {', '.join(sorted(absent))}, which --precisions does not")
    if options.engines:
        RTX.load()  # raises before the work if it is not installed
    limit_threads()
    run = open_run(options.run)
    home = options.models / options.name
    _check_writable(options.models, home)
    classifier = run.load_classifier()
    if "fp16" in options.precisions and not isinstance(classifier, Classifier):
        raise ValueError(
            "fp16 cannot be exported for an ensemble of several networks; choose other --precisions, or train with "
            "--average weights"
        )
    images, trained_NK = run.validation(options.data)
    rows = present_rows(images, options.data or run.data)
    images, trained_NK = [images[row] for row in rows], trained_NK[rows]
    with progress("reading validation images") as on_progress:
        views_NHWC = load_views(images, run.preprocess, on_progress)
    model = DeployedModel(classifier, run.temperature).eval()
    reference = ParityReference(model, images, views_NHWC, trained_NK, options.tolerances)
    exported, missing = _export(run, reparameterize(classifier), options, reference)
    reasons = "".join(f"\n{target} is missing: {reason}" for target, reason in missing.items())
    if not exported:
        raise CheckError(f"no file passed its checks, and nothing was written{reasons}")
    engines, no_engine = build_engine_files(exported, options, reference.crop) if options.engines else ([], "")
    served = load_graph(_served_graph(exported))
    predictions = _validation_predictions(served, run, reference)
    manifest = _manifest(run, options.name, exported, _adaptive(served, run, reference), predictions)
    manifest = replace(manifest, engines=tuple(engine for engine, _ in engines))
    with new_folder(home, "export") as folder:
        for artifact, graph in exported:
            (folder / artifact.file).write_bytes(graph)
        for engine, plan in engines:
            (folder / engine.file).write_bytes(plan)
        if options.report and (report := options.run / REPORT).is_file():
            shutil.copyfile(report, folder / REPORT)
        place = _publish(folder, home, manifest, run, options.card)
    for artifact, _ in exported:
        file, _, megabytes, correct, agreement, largest, _, second, _ = parity_row(artifact)
        facts = f"correct {correct}; agreement {agreement}, max |Δp| {largest}; cross-check: {second}"
        say(f"{file}: {megabytes} MB; {facts}")
    say(f"wrote {place}; open {place / PAGE}{reasons}")
    if failed := [target for target in missing if target in ("fp32", *options.require)]:
        raise CheckError(f"{place} was written without {', '.join(failed)}, which is required")
    if no_engine:
        raise CheckError(f"{place} was written without an engine: {no_engine}")


def _check_writable(models: Path, home: Path) -> None:
    """Raise ValueError if a version cannot be written below `home`: before the work, which would be lost."""
    try:
        with new_folder(next(each for each in (home, *home.parents) if each.exists()), "export"):
            pass
    except OSError as error:
        raise ValueError(f"--models {models} cannot be written: {error.strerror}; give another --models") from error


def present_rows(images: Sequence[LabelledImage], data: Path) -> list[int]:
    """The rows of the validation images that still exist.

    Raises:
        DataError: if more than 1% of them are missing.
    """
    rows = [row for row, image in enumerate(images) if _exists(image)]
    if missing := [image.path for image in images if not _exists(image)]:
        what = f"{len(missing):,} of {len(images):,} validation images are missing in {data}, such as {missing[0]}"
        if len(missing) > MAX_MISSING_PART * len(images):
            raise DataError(f"{what}: if they have moved, give their folder as --data")
        say(f"{what}; they are left out of the checks")
    return rows


def _exists(image: LabelledImage) -> bool:
    return (image.path.parent if isinstance(image, ShardImage) else image.path).exists()


def _calibration_images(run: Run, options: BundleOptions) -> list[LabelledImage]:
    folder = options.calibration.calibration
    images = list_folder(folder) if folder else [image for image in run.training(options.data) if _exists(image)]
    return choose_images(images, options.calibration.calibration_images)


def _export(
    run: Run,
    classifier: Network,
    options: BundleOptions,
    reference: ParityReference,
) -> tuple[list[Exported], dict[Target, str]]:
    """The graphs that were asked for and passed their checks, in the order of TARGETS, and why the others are missing.

    Args:
        classifier: computes what `reference.model` does; its graphs are exported.
    """
    exported: list[Exported] = []
    missing: dict[Target, str] = {}

    @contextmanager
    def attempt(*targets: Target) -> Iterator[None]:
        """Note why targets are missing, instead of losing the others."""
        try:
            yield
        except Exception as error:  # torch, ONNX and ONNX Runtime have errors of many types
            reason = str(error) if isinstance(error, ValueError | CheckError) else f"{type(error).__name__}: {error}"
            for target in targets:
                missing[target] = reason
                say(f"{target} failed: {reason}")

    asked = [target for target in TARGETS if target in options.precisions]
    from_fp32 = [target for target in asked if target != "fp16"]
    graph = None
    if from_fp32:
        say("exporting to ONNX")
        with attempt(*from_fp32):
            graph = to_onnx(DeployedModel(classifier, run.temperature).eval(), reference.crop)
    if graph is not None and "fp32" in asked:
        with attempt("fp32"):
            exported.append(_describe("fp32", Converted(graph, verify(graph, "fp32", "onnxruntime", reference), {})))
    calibration_NHWC: NDArray[np.uint8] | None = None
    if lower := [target for target in asked if target != "fp32"]:
        with attempt(*lower):
            calibration_NHWC = load_views(_calibration_images(run, options), run.preprocess)
    if calibration_NHWC is None:
        return exported, missing
    if "fp16" in asked:
        with attempt("fp16"):
            assert isinstance(classifier, Classifier)
            converted, facts = export_fp16(classifier, run.temperature, calibration_NHWC, reference)
            exported.append(_describe("fp16", converted, facts=facts))
    ranges = None
    int8 = [target for target in INT8_RUNTIMES if target in asked]
    if graph is not None and int8:
        with attempt(*int8), progress("calibrating") as on_progress:
            check_count(len(calibration_NHWC))
            ranges = measure_ranges(graph, calibration_NHWC, on_progress)
    if graph is None or ranges is None:
        return exported, missing
    source = str(options.calibration.calibration or "training split")
    facts = {"photos": len(calibration_NHWC), "source": source, "method": METHOD}
    for target in int8:
        runtime = INT8_RUNTIMES[target]
        with attempt(target):
            converted = export_int8(graph, ranges, runtime, calibration_NHWC, reference)
            exported.append(_describe(target, converted, runtime, facts))
    return exported, missing


def _describe(
    target: Target, converted: Converted, runtime: Runtime = "onnxruntime", facts: dict[str, Any] | None = None
) -> Exported:
    """A graph with its entry in the manifest.

    Args:
        facts: of its calibration, or of what overflows.
    """
    graph = converted.graph
    float_layers = [
        {"layer": layer, "sensitivity": sensitivity} for layer, sensitivity in converted.float_layers.items()
    ]
    artifact = Artifact(
        file=f"model.{target}.onnx",
        precision="int8" if target == "int8-trt" else target,
        sha256=hashlib.sha256(graph).hexdigest(),
        bytes=len(graph),
        parity=converted.parity,
        runtime=runtime,
        quantization={} if target == "fp32" else {**(facts or {}), "float_layers": float_layers},
    )
    return artifact, graph


def _served_graph(exported: list[Exported]) -> bytes:
    """The graph that a CPU serves, or the one most like it."""
    by_precision = {artifact.precision: graph for artifact, graph in exported if artifact.runtime == "onnxruntime"}
    return next((by_precision[p] for p in CPU_PRECISIONS if p in by_precision), exported[0][1])


def _validation_predictions(served: Compute, run: Run, reference: ParityReference) -> ValidationPredictions:
    """The predictions of a graph on the validation images, which a server compares its own with."""
    with progress("predictions on the validation images") as on_progress:
        found_NK = predict_each(served, reference.views_NHWC, on_progress)
    return ValidationPredictions.count(found_NK.argmax(1).tolist(), found_NK.max(1).tolist(), len(run.classes))


def _adaptive(served: Compute, run: Run, reference: ParityReference) -> dict[str, Any]:
    """The threshold of adaptive TTA."""
    with progress("choosing the adaptive threshold") as on_progress:
        return threshold_by_agreement(
            served,
            reference.images,
            run.preprocess,
            reference.confidence_N,
            recommended_views=run.recommended_views,
            temperatures=run.temperatures,
            on_progress=on_progress,
        )


def _manifest(
    run: Run,
    name: str,
    exported: Sequence[Exported],
    adaptive: dict[str, Any],
    predictions: ValidationPredictions,
) -> Manifest:
    facts = run.facts
    return Manifest(
        name=name,
        version=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        arch=run.arch,
        classes=run.classes,
        preprocess=run.preprocess,
        mean=facts["mean"],
        std=facts["std"],
        temperature=run.temperature,
        temperatures=run.temperatures,
        recommended_views=run.recommended_views,
        artifacts=tuple(artifact for artifact, _ in exported),
        metrics=facts["metrics"] | {"predictions": predictions.to_fields()},
        adaptive=adaptive,
        fingerprints=facts["fingerprints"],
        versions=versions(),
    )


def _publish(folder: Path, home: Path, manifest: Manifest, run: Run, card: CardOptions) -> Path:
    """Give a finished folder the next free version as its name, in one step."""
    version = max((int(path.name) for path in home.iterdir() if path.name.isdecimal()), default=0) + 1
    while True:
        numbered = replace(manifest, version=version)
        (folder / MANIFEST).write_text(numbered.to_json(), encoding="utf-8")
        (folder / PAGE).write_text(render_page(numbered, run.class_report), encoding="utf-8")
        (folder / CARD).write_text(render_card(numbered, run, card), encoding="utf-8")
        sync_folder(folder)
        place = home / str(version)
        try:
            folder.rename(place)
        except OSError:
            if not place.exists():
                raise
            version += 1  # another export took this number in the meantime
        else:
            return place
