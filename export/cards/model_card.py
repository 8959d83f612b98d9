"""README.md of a bundle: the model card, in the format of the Hugging Face Hub (YAML front matter and Markdown).

It is filled from the run and the manifest, and names what is missing there. People may edit it: only `export inspect`
reads it, to show its licence.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from export.cards.licenses import license_fields
from export.cards.page import PARITY_COLUMNS, describe_adaptive, fingerprint_facts, parity_row
from export.options import CardOptions
from serving.bundle.manifest import Manifest
from training.console import counted
from training.reports.page import class_rows
from training.runs.run import RECIPE_FILE, Run

UNKNOWN = "Not recorded."
MAX_CLASSES = 50
"""Classes with a row each; of more, the averages and those with the lowest F1."""
LOWEST = 20
FEW = 30
"""Images of a class below which its scores say little."""
MAX_NAMES = 20


_WEIGHTS = re.compile(r"(?m)^(weights: '?).*/")
"""A path of this machine before the name of a file or run with the weights."""


def render_card(manifest: Manifest, run: Run, options: CardOptions) -> str:
    """The model card.

    Args:
        manifest: of the bundle, with its version.
        run: that was exported.
        options: licence and intended use, as far as they are known.
    """
    front = yaml.safe_dump(_front_matter(manifest, run, options), sort_keys=False, allow_unicode=True, width=1000)
    sections = (
        ("Intended use", _intended_use(manifest, options)),
        ("Data", _data(manifest, run)),
        ("Results", _results(manifest, run)),
        ("Limits", _limits(manifest, run)),
        ("Files", _files(manifest)),
        ("How to use it", _use(manifest)),
        ("Training", _training(manifest, run)),
    )
    body = "\n\n".join(f"## {title}\n\n" + "\n\n".join(parts) for title, parts in sections)
    lead = (
        f"Classifies images as {_names(manifest.classes)}: {text(manifest.arch)}, fine-tuned and exported by pawserve."
    )
    return f"---\n{front}---\n\n# {manifest.name}, version {manifest.version}\n\n{lead}\n\n{body}\n"


def _front_matter(manifest: Manifest, run: Run, options: CardOptions) -> dict[str, Any]:
    report = run.class_report
    accuracy = _accuracy(manifest)
    metrics = [] if accuracy is None else [("accuracy", "Accuracy", accuracy)]
    if report:
        metrics += [("f1", "Macro F1", report.macro.f1), ("precision", "Macro precision", report.macro.precision)]
        metrics += [("recall", "Macro recall", report.macro.recall)]
    return {
        **license_fields(options.license),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "pawserve", "timm", manifest.arch],
        "metrics": [kind for kind, _, _ in metrics],
        "model-index": [
            {
                "name": f"{manifest.name}-{manifest.version}",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"name": run.data.name, "type": "imagefolder", "split": "validation"},
                        "metrics": [
                            {"type": kind, "name": name, "value": round(value, 6)} for kind, name, value in metrics
                        ],
                    }
                ],
            }
        ],
    }


def _intended_use(manifest: Manifest, options: CardOptions) -> list[str]:
    stated = text(options.intended_use) if options.intended_use else "The author has not stated what it is for."
    return [
        stated,
        f"It gives every image a probability for each of {len(manifest.classes):,} classes. An image that shows "
        "none of them gets one of them too.",
    ]


def _data(manifest: Manifest, run: Run) -> list[str]:
    data = run.facts["data"]
    trained = run.training_counts()
    validated = {scores.name: scores.support for scores in run.class_report.classes} if run.class_report else {}
    rows = [["class", "training images", "validation images"]]
    rows += [
        [name, f"{trained[name]:,}" if trained else UNKNOWN, f"{validated.get(name, 0):,}"]
        for name in run.classes[:MAX_CLASSES]
    ]
    parts = [
        f"{data['train']:,} images to train on and {data['valid']:,} to validate on, in a folder named "
        f"`{text(run.data.name)}`. Where they come from, who labelled them and their licence: {UNKNOWN.lower()}",
        table(rows),
    ]
    if len(run.classes) > MAX_CLASSES:
        parts.append(f"And {len(run.classes) - MAX_CLASSES:,} more classes.")
    if exclusions := data.get("exclusions"):
        parts.append(
            f"By a person's list, {exclusions['excluded']:,} images were left out and {exclusions['relabelled']:,} "
            "relabelled."
        )
    if labels := data.get("labels"):
        parts.append(f"{labels['added']:,} of the training images were labelled while they were served.")
    if checks := data.get("checks"):
        parts.append(
            f"Data checks: {counted(checks['suspects'], 'label suspect')}, "
            f"{counted(checks['duplicates'], 'near duplicate')}, "
            f"and {counted(checks['leaks'], 'validation image')} with a copy among the training images."
        )
    return parts


def _results(manifest: Manifest, run: Run) -> list[str]:
    metrics, facts = manifest.metrics, run.facts
    rows = [["metric", "value", "95% interval"]]
    for name, key in (
        ("accuracy", "accuracy"),
        ("negative log likelihood (nats)", "nll"),
        ("Brier score", "brier"),
        ("expected calibration error", "ece"),
    ):
        interval = metrics.get(key)
        given = [f"{interval[end]:.4f}" for end in ("value", "lower", "upper")] if interval else None
        rows.append([name, given[0], f"{given[1]} to {given[2]}"] if given else [name, UNKNOWN, ""])
    parts = [
        f"Of the trained network on {counted(metrics.get('n', 0), 'validation image')}, one view of each:",
        table(rows),
        "Accuracy has a Wilson interval, the others bootstrap intervals. The temperature of the probabilities is "
        f"{manifest.temperature:.3f}, fitted on the validation images; the figures are cross-fitted.",
    ]
    if report := run.class_report:
        scores = class_rows(report)
        if len(report.classes) > MAX_CLASSES:
            worst = sorted(scores[3:], key=lambda row: float(row[3]))[:LOWEST]
            scores = [*scores[:3], *worst]
            parts.append(f"The averages, and the {LOWEST} classes with the lowest F1:")
        parts.append(table(scores))
    parts += _test_time(manifest, facts)
    return parts


def _test_time(manifest: Manifest, facts: dict[str, Any]) -> Iterator[str]:
    """Effect of averaging over several views."""
    rows = [["views", "accuracy", "negative log likelihood"]]
    for each in facts.get("test_time", []):
        measured = each["metrics"]
        rows.append([str(each["views"]), f"{measured['accuracy']['value']:.4f}", f"{measured['nll']['value']:.4f}"])
    if len(rows) > 1:
        yield "Test-time augmentation, averages over several views of an image:"
        yield table(rows)
        yield f"Recommended: {manifest.recommended_views}. Adaptive: {describe_adaptive(manifest)}."


def _limits(manifest: Manifest, run: Run) -> list[str]:
    lines = [
        "The validation images come from the same source as the training images. On images from elsewhere (other "
        "cameras, light, backgrounds) the accuracy may be lower; measure it there.",
        f"{_accuracy(manifest) or 0:.2%} is an estimate from {manifest.metrics.get('n', 0):,} images.",
    ]
    if report := run.class_report:
        few = [scores.name for scores in report.classes if scores.support < FEW]
        if few:
            lines.append(f"Fewer than {FEW} validation images, so scores that say little: {_names(few)}.")
    checks = run.facts["data"].get("checks") or {}
    if checks.get("leaks"):
        clean = checks["validation_accuracy_without_leaks"]
        lines.append(
            f"{counted(checks['leaks'], 'validation image')} with a copy among the training images, so the accuracy is "
            f"too high; {clean['n']:,} without."
        )
    lines.append("Fairness between groups of people, and robustness against manipulated images: not examined.")
    return ["\n".join(f"- {line}" for line in lines)]


def _files(manifest: Manifest) -> list[str]:
    return [
        table([PARITY_COLUMNS, *map(parity_row, manifest.artifacts)]),
        "Each file was compared with the trained network on the validation images. `model.json` has the sizes and "
        "SHA-256 of the files, `bundle.html` the details.",
    ]


def _use(manifest: Manifest) -> list[str]:
    file, crop, preprocess = manifest.artifacts[0].file, manifest.preprocess.crop, manifest.preprocess
    size = f"Images are resized to {preprocess.resize} pixels on the shorter side ({preprocess.interpolation})."
    return [
        "With pawserve, which reads the images as in training:",
        f"```sh\npawserve predict --model models/{manifest.name} image.jpg\npawserve serve --models models\n```",
        f"With ONNX Runtime; the graph takes uint8 RGB `[N, {crop}, {crop}, 3]` and gives calibrated probabilities "
        f"`[N, {len(manifest.classes)}]`. {size} The input is the square of {crop} pixels in the middle:",
        f'```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("{file}")\n'
        '(probabilities,) = session.run(["probabilities"], {"images": images})\n```',
    ]


def _training(manifest: Manifest, run: Run) -> list[str]:
    facts = run.facts
    rows = [
        ["", "value"],
        ["network", manifest.arch],
        ["hardware", str(facts.get("hardware", UNKNOWN))],
        ["seconds", f"{facts['seconds']['total']:,.0f}"],
        ["trained", str(facts.get("created", UNKNOWN))],
        ["exported", manifest.created],
        *([what, sha256] for what, sha256 in fingerprint_facts(manifest).items()),
        *([name, release] for name, release in manifest.versions.items()),
    ]
    recipe = (run.folder / RECIPE_FILE).read_text(encoding="utf-8").rstrip()
    recipe = _WEIGHTS.sub(r"\1", recipe)
    return [table(rows), f"The recipe:\n\n```yaml\n{recipe}\n```"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, the header first."""
    lines = ["| " + " | ".join(map(text, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def text(words: str) -> str:
    """Text in which Markdown and HTML have no meaning, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(words.split()))


def _names(names: Sequence[str]) -> str:
    shown = [text(name) for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        return f"{', '.join(shown)} and {len(names) - MAX_NAMES:,} more"
    return " or ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _accuracy(manifest: Manifest) -> float | None:
    interval = manifest.metrics.get("accuracy")
    return float(interval["value"]) if interval else None
