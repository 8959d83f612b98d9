"""bundle.html: what is deployed and how it compares with what was trained."""

from html import escape
from typing import Any

from export.engine_layers import describe
from serving.bundle.engine_file import EngineFile
from serving.bundle.manifest import Artifact, Manifest
from serving.statistics.class_report import ClassReport
from training.reports.page import Section, cards, class_rows, document, facts_table, table


def render_page(manifest: Manifest, report: ClassReport | None = None) -> str:
    """Render the page: self-contained HTML without scripts.

    Args:
        report: precision, recall, F1 and support of the trained network on the validation images.
    """
    facts = {
        **describe_model(manifest, most_classes=50),
        **fingerprint_facts(manifest),
        "versions": ", ".join(f"{name} {release}" for name, release in manifest.versions.items()),
    }
    parity = [PARITY_COLUMNS, *map(parity_row, manifest.artifacts)]
    notes = [describe_quantization(artifact) for artifact in manifest.artifacts if artifact.quantization]
    notes += [f"{engine.file}: {describe_engine(engine)}" for engine in manifest.engines]
    files = [
        f'<div class="files">{table(parity)}</div>',
        '<p class="note">Each file was run in ONNX Runtime on the validation images and compared with the trained '
        "network: agreement is the part of the images with the same predicted class, |Δp| the difference of a "
        "probability. The cross-check runs the same file in OpenVINO and compares it with ONNX Runtime.</p>",
        *(f"<p>{escape(note)}</p>" for note in notes),
    ]
    figures = cards(
        [
            ("network", manifest.arch, f"{manifest.preprocess.crop} pixels"),
            ("classes", f"{len(manifest.classes):,}", ""),
            ("files", f"{len(manifest.artifacts) + len(manifest.engines):,}", "ONNX graphs and engines"),
            ("recommended views", str(manifest.recommended_views), "test-time augmentation"),
        ]
    )
    lead = f"<p>Accuracy of the trained network: {describe_accuracy(manifest)}.</p>"
    sections = [
        Section("files", "Files and their parity", files),
        *([Section("classes", "Results by class", _classes(report))] if report else []),
        Section("model", "The model", [facts_table(facts)]),
    ]
    return document(manifest.resource, [figures, lead], sections)


def fingerprint_facts(manifest: Manifest) -> dict[str, str]:
    """The SHA-256 sums of what the model was made from, by what they are of."""
    names = {"pretrained": "pretrained weights"}
    return {f"fingerprint of the {names.get(what, what)}": sha256 for what, sha256 in manifest.fingerprints.items()}


def _classes(report: ClassReport) -> list[str]:
    note = "Of the trained network on the validation images, as in the report of the training."
    return [f'<p class="note">{note}</p>', table(class_rows(report))]


PARITY_COLUMNS = ("file", "for", "MB", "correct", "agreement", "max |Δp|", "mean |Δp|", "cross-check", "SHA-256")


def parity_row(artifact: Artifact) -> tuple[str, ...]:
    """One artifact's cells under `PARITY_COLUMNS`."""
    return (
        artifact.file,
        "TensorRT" if artifact.runtime == "tensorrt" else "ONNX Runtime",
        f"{artifact.bytes / 1e6:.1f}",
        *_parity_figures(artifact.parity),
        f"{artifact.sha256[:12]}…",
    )


def _parity_figures(parity: dict[str, Any]) -> tuple[str, ...]:
    """The cells from "correct" to "cross-check"; a bundle that another program wrote may have no figures."""
    if not parity.keys() >= {"correct", "photos", "trained_correct", "agreement", "max_abs_diff", "mean_abs_diff"}:
        return ("not recorded",) * 5
    return (
        f"{parity['correct']:,} of {parity['photos']:,} (trained: {parity['trained_correct']:,})",
        f"{100 * parity['agreement']:.2f}%",
        f"{parity['max_abs_diff']:.1e}",
        f"{parity['mean_abs_diff']:.1e}",
        _describe_cross_check(parity.get("second_runtime")),
    )


def _describe_cross_check(second: dict[str, Any] | None) -> str:
    if second is None:
        return "none"
    if failure := second.get("failure"):
        return f"{second['name']}: not compared: {failure}"
    return f"{second['name']}: agreement {100 * second['agreement']:.2f}%, max |Δp| {second['max_abs_diff']:.1e}"


def describe_model(manifest: Manifest, *, most_classes: int) -> dict[str, str]:
    """Facts about a model by their names, for a table."""
    preprocess = manifest.preprocess
    return {
        "created": manifest.created,
        "network": manifest.arch,
        "classes": f"{len(manifest.classes):,}: {', '.join(manifest.classes[:most_classes])}",
        "input": f"{preprocess.crop} of {preprocess.resize} pixels, {preprocess.interpolation}",
        "temperature": ", ".join(
            f"{temperature:.3f} for {count} view{'s' * (count > 1)}{', inside the graphs' * (count == 1)}"
            for count, temperature in sorted(manifest.temperatures.items())
        ),
        "recommended views": str(manifest.recommended_views),
        "adaptive TTA": describe_adaptive(manifest),
    }


def describe_accuracy(manifest: Manifest) -> str:
    """The accuracy on the validation images, with its interval."""
    accuracy, count = manifest.metrics.get("accuracy"), manifest.metrics.get("n")
    if not accuracy or count is None:
        return "not recorded"
    lower, upper = 100 * accuracy["lower"], 100 * accuracy["upper"]
    return f"{100 * accuracy['value']:.2f}% of {count:,} images (95% interval {lower:.2f}% to {upper:.2f}%)"


def describe_quantization(artifact: Artifact) -> str:
    """How an artifact's precision was lowered and which of its layers stay in float32."""
    facts = artifact.quantization
    unit = "nats" if artifact.precision == "int8" else "of a logit"
    kept = ", ".join(f"{layer['layer']} ({layer['sensitivity']:.1e} {unit})" for layer in facts["float_layers"])
    calibrated = ""
    if "photos" in facts:
        calibrated = f"calibrated on {facts['photos']:,} images ({facts['source']}), {facts['method']}; "
    layers = f"layers in float32, with their sensitivity: {kept}." if kept else "no layer stays in float32."
    overflows = "".join(
        f" float16 overflows in {layer}: {block} stays in float32."
        for block, layer in facts.get("overflows", {}).items()
    )
    return f"{artifact.file}: {calibrated}{layers}{overflows}"


def describe_engine(engine: EngineFile) -> str:
    """What an engine was built with and for, its size, and the types of its layers."""
    built = f", built in {engine.build['seconds']} s" if "seconds" in engine.build else ""
    return (
        f"TensorRT for RTX {engine.release} for compute capability {', '.join(engine.compute_capabilities)}, batches "
        f"of {engine.min_batch} to {engine.max_batch}, {engine.bytes / 1e6:.1f} MB{built}; "
        f"{describe(engine.build.get('layers', {}))}"
    )


def describe_adaptive(manifest: Manifest) -> str:
    """Below which confidence adaptive TTA computes all views, and what that brings."""
    facts = manifest.adaptive
    if not facts:
        return "no threshold: adaptive requests compute all views"
    return (
        f"all {facts['views']} views below a confidence of {facts['threshold']:.3f}: {facts['mean_views']:.2f} views "
        f"per image, agreement with all views {100 * facts['agreement']:.2f}% on {facts['photos']:,} images"
    )
