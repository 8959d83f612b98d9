"""A manifest in; bundle.html out: what is deployed, and how it compares with what was trained."""

from html import escape

from serving.bundle.manifest import Artifact, Manifest

_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:80rem}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
.lead{font-size:1.1rem}.note{opacity:.75;font-size:.9rem}.table{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td{overflow-wrap:anywhere}
"""


def render_page(manifest: Manifest) -> str:
    """The page as HTML: self-contained, no script."""
    accuracy = manifest.metrics["accuracy"]
    preprocess = manifest.preprocess
    facts = {
        "created": manifest.created,
        "network": manifest.arch,
        "classes": f"{len(manifest.classes):,}: {', '.join(manifest.classes[:50])}",
        "input": f"{preprocess.crop} of {preprocess.resize} pixels, {preprocess.interpolation}",
        "temperature": f"{manifest.temperature:.3f}, inside the graphs",
        "adaptive requests": describe_adaptive(manifest),
        **{f"fingerprint of the {what}": sha256 for what, sha256 in manifest.fingerprints.items()},
        "versions": ", ".join(f"{name} {release}" for name, release in manifest.versions.items()),
    }
    header = "".join(f"<th>{name}</th>" for name in PARITY_COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in parity_row(artifact)) + "</tr>"
        for artifact in manifest.artifacts
    )
    notes = [note for artifact in manifest.artifacts for note in _quantization(artifact)]
    title = escape(manifest.resource)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="lead">Trained: <b>{100 * accuracy["value"]:.2f}%</b> of {manifest.metrics["n"]:,} validation '
        f"photos right (95% interval {100 * accuracy['lower']:.2f}% to {100 * accuracy['upper']:.2f}%).</p>"
        f'<h2>Files, and how they compare</h2><div class="table"><table><tr>{header}</tr>{rows}</table></div>'
        '<p class="note">Each file was run in ONNX Runtime on the validation photos and compared with the trained '
        "network's probabilities; |Δp| is the difference of a probability. The second runtime reads the same file and "
        "is compared with ONNX Runtime.</p>"
        + "".join(f"<p>{escape(note)}</p>" for note in notes)
        + '<h2>The model</h2><div class="table"><table>'
        + "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
        + "</table></div></body></html>\n"
    )


PARITY_COLUMNS = ("file", "for", "MB", "right", "same answers", "max |Δp|", "mean |Δp|", "second runtime", "SHA-256")


def parity_row(artifact: Artifact) -> tuple[str, ...]:
    """One artifact's cells under `PARITY_COLUMNS`."""
    parity = artifact.parity
    second = parity.get("second_runtime")
    return (
        artifact.file,
        "TensorRT" if artifact.runtime == "tensorrt" else "ONNX Runtime",
        f"{artifact.bytes / 1e6:.1f}",
        f"{parity['correct']:,} of {parity['photos']:,} (trained: {parity['trained_correct']:,})",
        f"{100 * parity['agreement']:.2f}%",
        f"{parity['max_abs_diff']:.1e}",
        f"{parity['mean_abs_diff']:.1e}",
        f"{second['name']}: {100 * second['agreement']:.2f}% same, max |Δp| {second['max_abs_diff']:.1e}"
        if second
        else "not compared",
        f"{artifact.sha256[:12]}…",
    )


def describe_adaptive(manifest: Manifest) -> str:
    """What adaptive requests look at."""
    facts = manifest.adaptive
    if not facts:
        return "no threshold: adaptive requests look at all views"
    return (
        f"more views below {facts['threshold']:.3f}: {facts['mean_views']:.2f} of {facts['views']} views a photo, "
        f"{100 * facts['agreement']:.2f}% of {facts['photos']:,} photos answered as with all views"
    )


def _quantization(artifact: Artifact) -> list[str]:
    facts = artifact.quantization
    if not facts:
        return []
    unit = "nats" if artifact.precision == "int8" else "of a logit"
    kept = ", ".join(f"{layer['layer']} ({layer['damage']:.1e} {unit})" for layer in facts["float_layers"])
    calibrated = ""
    if "photos" in facts:
        calibrated = f"calibrated on {facts['photos']:,} photos ({facts['source']}), {facts['method']}; "
    return [
        f"{artifact.file}: {calibrated}"
        + (f"left in float32, with the damage measured there: {kept}." if kept else "no layer is left in float32.")
    ]
