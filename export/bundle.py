"""A finished run in; a checked bundle `models/NAME/VERSION/` out: the whole of `python -m export bundle`."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from export.adaptive import adapt
from export.calibrate import METHOD, choose_photos, list_calibration, measure_ranges
from export.checks.checks import Tolerances
from export.checks.verify import ParityReference, verify
from export.graphs.fp16 import half_until_passed
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.sensitivity import quantize_until_passed
from export.inference import load_views, open_session
from export.page import render_page
from serving.bundle.manifest import MANIFEST, Artifact, Manifest, Precision, Runtime
from serving.bundle.model_version import check_name
from serving.engine.onnx import CPU_PRECISIONS
from serving.system.files import new_folder, sync_folder
from training.console import progress, say
from training.data.images import LabelledImage
from training.networks.model import Classifier, Network
from training.runs.run import Run
from training.versions import versions

PAGE = "bundle.html"
DAMAGE_PHOTOS, HALF_DAMAGE_PHOTOS = 48, 16
"""Calibration photos on which the damage of single layers is measured; torch, for float16, is the slower one."""

Target = Literal["fp32", "fp16", "int8", "int8-trt"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What INT8 takes the ranges of its activations from."""

    calibration: Path | None = None
    """Folder of photos like those to be served. Default: the run's training photos."""
    calibration_photos: int = 128
    """How many of them are looked at, chosen evenly over the classes."""

    def __post_init__(self) -> None:
        if not 16 <= self.calibration_photos <= 100_000:
            raise ValueError(f"calibration_photos is {self.calibration_photos}; it must lie between 16 and 100,000")


def export_bundle(
    run: Run,
    models: Path,
    name: str,
    data: Path | None = None,
    *,
    targets: Sequence[Target] = TARGETS,
    tolerances: Tolerances | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Export a run, prove that each graph does what was trained, and write a bundle under the next free version.

    Args:
        models: folder of models; `models/name/VERSION` is written in one step.
        data: where the run's photos are now, if they have moved.
        targets: which files to write.
        tolerances: how far they may be from the trained network.

    Returns:
        The bundle's folder.

    Raises:
        RunError, DataError: if the run is incomplete, or its photos are gone or changed.
        CheckError: if a graph differs from the network; then nothing is written.
        OSError: if it cannot be written; then nothing is left under the version's name.
    """
    check_name(name)
    if not targets:
        raise ValueError(f"no precisions were given; choose of {', '.join(TARGETS)}")
    calibration = calibration or Calibration()
    classifier = run.load_classifier()
    if "fp16" in targets and not isinstance(classifier, Classifier):
        raise ValueError(
            "fp16 is not made of several averaged networks; choose other --precisions, or train with --average weights"
        )
    photos, trained_NK = run.validation(data)
    chosen = _calibration_photos(run, data, calibration) if set(targets) != {"fp32"} else []
    with progress("reading validation photos") as on_progress:
        views_NHWC = load_views(photos, run.preprocess, on_progress)
    reference = ParityReference(
        model=DeployedModel(classifier, run.temperature).eval(),
        crop=run.preprocess.crop,
        classes=len(run.classes),
        photos=photos,
        views_NHWC=views_NHWC,
        trained_NK=trained_NK,
        tolerances=tolerances or Tolerances(),
    )
    graphs = _export(run, classifier, sorted(set(targets), key=TARGETS.index), chosen, calibration, reference)
    manifest = _manifest(run, name, tuple(artifact for artifact, _ in graphs), _adaptive(graphs, run, reference))
    with new_folder(models / name, "export") as folder:
        for artifact, graph in graphs:
            (folder / artifact.file).write_bytes(graph)
        return _publish(folder, models / name, manifest)


def _calibration_photos(run: Run, data: Path | None, calibration: Calibration) -> list[LabelledImage]:
    folder = calibration.calibration
    photos = list_calibration(folder) if folder else run.training(data)
    return choose_photos(photos, calibration.calibration_photos)


def _export(
    run: Run,
    classifier: Network,
    targets: Sequence[Target],
    chosen: list[LabelledImage],
    calibration: Calibration,
    reference: ParityReference,
) -> list[tuple[Artifact, bytes]]:
    """The graphs asked for, each checked, with their entries in the manifest."""
    done: list[tuple[Artifact, bytes]] = []

    def add(target: Target, precision: Precision, graph: bytes, parity: dict[str, Any], **fields: Any) -> None:
        sha256 = hashlib.sha256(graph).hexdigest()
        file = f"model.{target}.onnx"
        artifact = Artifact(file=file, precision=precision, sha256=sha256, bytes=len(graph), parity=parity, **fields)
        done.append((artifact, graph))

    say("exporting to ONNX")
    fp32 = to_onnx(reference.model, reference.crop)
    if "fp32" in targets:
        add("fp32", "fp32", fp32, verify(fp32, "fp32", "onnxruntime", reference))
    if not chosen:
        return done
    calibration_NHWC = load_views(chosen, run.preprocess, lambda done, total: None)
    if "fp16" in targets:
        assert isinstance(classifier, Classifier)
        found, kept = half_until_passed(
            classifier, torch.from_numpy(calibration_NHWC[:HALF_DAMAGE_PHOTOS]), _half_gate(run.temperature, reference)
        )
        add("fp16", "fp16", found["graph"], found["parity"], quantization={"float_layers": kept})
    if not {"int8", "int8-trt"} & set(targets):
        return done
    with progress("calibrating") as on_progress:
        ranges = measure_ranges(fp32, calibration_NHWC, on_progress)
    for target, runtime in _INT8:
        if target not in targets:
            continue
        graph, parity, kept = quantize_until_passed(
            fp32, ranges, runtime, calibration_NHWC[:DAMAGE_PHOTOS], _gate(runtime, reference)
        )
        add(
            target,
            "int8",
            graph,
            parity,
            runtime=runtime,
            quantization={
                "photos": len(chosen),
                "source": str(calibration.calibration or "training split"),
                "method": METHOD,
                "float_layers": kept,
            },
        )
    return done


_INT8: tuple[tuple[Target, Runtime], ...] = (("int8", "onnxruntime"), ("int8-trt", "tensorrt"))


def _gate(runtime: Runtime, reference: ParityReference) -> Callable[[bytes], dict[str, Any]]:
    return lambda graph: verify(graph, "int8", runtime, reference)


def _half_gate(temperature: float, reference: ParityReference) -> Callable[[Classifier], dict[str, Any]]:
    def gate(halved: Classifier) -> dict[str, Any]:
        graph = to_onnx(DeployedModel(halved, temperature).eval(), reference.crop)
        return {"graph": graph, "parity": verify(graph, "fp16", "onnxruntime", reference)}

    return gate


def _adaptive(graphs: list[tuple[Artifact, bytes]], run: Run, reference: ParityReference) -> dict[str, Any]:
    """The threshold of adaptive requests, chosen with the graph that a CPU serves, or what is nearest to it."""
    by_precision = {a.precision: graph for a, graph in graphs if a.runtime == "onnxruntime"}
    graph = next((by_precision[p] for p in CPU_PRECISIONS if p in by_precision), graphs[0][1])
    with progress("looking at uncertain photos again") as on_progress:
        return adapt(open_session(graph), reference.photos, run.preprocess, reference.trained_NK, on_progress)


def _manifest(run: Run, name: str, artifacts: tuple[Artifact, ...], adaptive: dict[str, Any]) -> Manifest:
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
        artifacts=artifacts,
        metrics=facts["metrics"],
        adaptive=adaptive,
        fingerprints=facts["fingerprints"],
        versions=versions(),
    )


def _publish(folder: Path, home: Path, manifest: Manifest) -> Path:
    """Give a finished folder the next free version's name, in one step."""
    version = max((int(path.name) for path in home.iterdir() if path.name.isdecimal()), default=0) + 1
    while True:
        numbered = replace(manifest, version=version)
        (folder / MANIFEST).write_text(numbered.to_json(), encoding="utf-8")
        (folder / PAGE).write_text(render_page(numbered), encoding="utf-8")
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
