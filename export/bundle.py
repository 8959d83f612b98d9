"""A finished run in; a checked bundle `models/NAME/VERSION/` out: the whole of `python -m export bundle`."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime

from export.to_onnx import Deployable, to_onnx
from export.verify import check_answers, check_graph, check_parity, load_views
from serving.bundle import MANIFEST, Artifact, Manifest, check_name
from training.files import new_folder, sync_folder
from training.progress import progress, say
from training.run import Run
from training.versions import versions

FP32_FILE = "model.fp32.onnx"


def export_bundle(run: Run, models: Path, name: str, data: Path | None = None) -> Path:
    """Export a run, prove that the graph does what was trained, and write a bundle under the next free version.

    Args:
        models: folder of models; `models/name/VERSION` is written in one step.
        data: where the run's photos are now, if they have moved.

    Returns:
        The bundle's folder.

    Raises:
        RunError, DataError: if the run is incomplete, or its photos are gone or changed.
        GateError: if the graph differs from the network; then nothing is written.
        OSError: if it cannot be written; then nothing is left under the version's name.
    """
    check_name(name)
    classifier = run.load_classifier()
    preprocess = run.preprocess
    photos, trained_NK = run.validation(data)
    with progress("reading validation photos") as on_progress:
        views_NHWC = load_views(photos, preprocess, on_progress)
    say("exporting to ONNX")
    deployable = Deployable(classifier, run.temperature).eval()
    graph = to_onnx(deployable, preprocess.crop)
    check_graph(graph, crop=preprocess.crop, classes=len(run.classes))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    parity = check_parity(session, deployable, photos, views_NHWC)
    with progress("comparing answers") as on_progress:
        answers = check_answers(session, photos, views_NHWC, trained_NK, on_progress)
    artifact = Artifact(
        file=FP32_FILE,
        precision="fp32",
        sha256=hashlib.sha256(graph).hexdigest(),
        bytes=len(graph),
        parity={"reference": "torch", **parity, **answers},
    )
    with new_folder(models / name, "export") as folder:
        (folder / FP32_FILE).write_bytes(graph)
        return _publish(folder, models / name, _manifest(run, name, artifact))


def _manifest(run: Run, name: str, artifact: Artifact) -> Manifest:
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
        artifacts=(artifact,),
        metrics=facts["metrics"],
        fingerprints=facts["fingerprints"],
        versions=versions(),
    )


def _publish(folder: Path, home: Path, manifest: Manifest) -> Path:
    """Give a finished folder the next free version's name, in one step."""
    version = max((int(path.name) for path in home.iterdir() if path.name.isdecimal()), default=0) + 1
    while True:
        content = replace(manifest, version=version).to_json()
        (folder / MANIFEST).write_text(content, encoding="utf-8")
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
