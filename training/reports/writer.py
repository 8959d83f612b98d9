"""What a fit came to in; the files of a run folder, except run.json itself, out."""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from serving.statistics.calibration import bin_predictions
from training.console import progress
from training.data.augment import contact_sheet
from training.data.images import Skipped, Split, shared_images
from training.data.sources import random_batches
from training.evaluation.evaluation import Evaluation
from training.evaluation.metrics import compare
from training.features.lookup import resized
from training.fitting.loop import TrainingError
from training.fitting.session import FitSession, shortened
from training.fitting.steps import FitResult
from training.networks.model import Network, is_finite
from training.reports.plots import (
    plot_calibration,
    plot_confusion,
    plot_losses,
    plot_lr_curve,
    plot_rates,
    rates_over_time,
)
from training.reports.report import ReportContents, choose_galleries, render_report
from training.runs.run import MODEL_FILE
from training.versions import versions

SHEET_TILE = 160
MOST_CONFUSED = 10


def write_model(folder: Path, network: Network) -> str:
    """Write model.safetensors and return its SHA-256.

    Raises:
        TrainingError: if a weight is no number.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if not is_finite(state):
        raise TrainingError("the trained weights are no longer numbers: lower --lr (a tenth is a good next try)")
    content = safetensors.torch.save(state)
    (folder / MODEL_FILE).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def step_facts(fitted: FitResult) -> list[dict[str, Any]]:
    """What the network was like after each step, and against the step before (McNemar)."""
    facts: list[dict[str, Any]] = []
    before: NDArray[np.bool_] | None = None
    for result in fitted.reached.results:
        right = result.right.cpu().numpy()
        paired = None if before is None else asdict(compare(before, right))
        before = right
        facts.append(
            {"name": result.name, "size": result.size, "seconds": round(result.seconds, 3)}
            | {"metrics": result.metrics, "against_previous": paired}
        )
    return facts


def write_report(
    setting: FitSession,
    fitted: FitResult,
    split: Split,
    evaluation: Evaluation,
    steps: Sequence[Mapping[str, Any]],
    skipped: Sequence[Skipped],
    seconds: Mapping[str, float],
) -> None:
    """Write report.html and plots/*.png."""
    recipe, history = setting.recipe, fitted.reached.history
    confidence = evaluation.probabilities_NK.max(1).astype(np.float64)
    right = evaluation.probabilities_NK.argmax(1) == evaluation.labels_N
    parts, first_epoch = [], 0
    for track in fitted.tracks:
        stage = track.step.stage
        per_epoch = len(random_batches(track.rows, recipe.batch_size, 0, smallest=2 * setting.processes.count))
        parts.append(
            rates_over_time(stage, track.rates, per_epoch=per_epoch, momentum=recipe.momentum, first_epoch=first_epoch)
        )
        first_epoch += stage.epochs
    plots = {
        "losses": ("Losses and accuracy by epoch", plot_losses(history)),
        "rates": ("Learning rate and momentum over time", plot_rates(parts)),
        "confusion": ("Confusion matrix of the validation images", plot_confusion(evaluation.confusion)),
        "calibration": (
            "Calibration: how sure, and how often right",
            plot_calibration(bin_predictions(confidence, right)),
        ),
    }
    for number, curve in enumerate(fitted.reached.curves, 1):
        plots[f"lr-finder-{number}"] = (f"Finding a rate: {curve.name}", plot_lr_curve(curve))
    augmented = next((track.step for track in fitted.tracks if _augments(track.step.stage)), None)
    if augmented is not None:
        preprocess = resized(setting.backbone.preprocess, SHEET_TILE)
        canvas = preprocess.canvas(split.train[recipe.seed % len(split.train)].read())
        buffer = io.BytesIO()
        contact_sheet(canvas, augmented.stage.augment, SHEET_TILE, recipe.seed).save(buffer, "PNG")
        plots["augmentation"] = (f"One image augmented sixteen times: {augmented.stage.augment}", buffer.getvalue())
    (setting.folder / "plots").mkdir(exist_ok=True)
    for name, (_, png) in plots.items():
        (setting.folder / "plots" / f"{name}.png").write_bytes(png)
    contents = ReportContents(
        title=f"{recipe.arch}: {shortened(split.classes)}",
        evaluation=evaluation,
        images=split.valid,
        galleries=choose_galleries(
            evaluation.probabilities_NK, evaluation.labels_N, evaluation.confusion.classes, seed=recipe.seed
        ),
        plots=dict(plots.values()),
        tables={
            "What each step bought": _bought(steps),
            **({"Most often confused": confused} if len(confused := _confused(evaluation)) > 1 else {}),
            **{f"Layer groups: {track.step.name}": track.groups for track in fitted.tracks},
        },
        facts={
            "images": f"{len(split.train):,} for training, {len(split.valid):,} for validation",
            "hardware": f"{setting.hardware}; {setting.processes.count} training processes",
            "recipe": ", ".join(f"{name} {value}" for name, value in recipe.as_fields().items() if name != "stages"),
            **{f"stage {name}": _settings(fields) for name, fields in recipe.as_fields()["stages"].items()},
            **{f"seconds: {name}": f"{value:.1f}" for name, value in seconds.items()},
            "versions": ", ".join(f"{name} {release}" for name, release in versions().items()),
        },
        skipped=skipped,
        shared=shared_images(split),
    )
    with progress("report") as on_progress:
        (setting.folder / "report.html").write_text(render_report(contents, on_progress), encoding="utf-8")


def _augments(stage: Any) -> bool:
    return bool(stage.learn_from == "photos" and stage.augment != "none")


def _settings(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _confused(evaluation: Evaluation) -> list[list[str]]:
    """Pairs of classes, the most frequent mistakes first: with many classes the matrix is too large to read."""
    rows = [["is", "taken for", "images"]]
    classes = evaluation.confusion.classes
    predicted_N = evaluation.probabilities_NK.argmax(1)
    wrong = predicted_N != evaluation.labels_N
    pairs = Counter(zip(evaluation.labels_N[wrong].tolist(), predicted_N[wrong].tolist(), strict=True))
    if len(classes) > 2:
        rows += [[classes[a], classes[b], f"{n:,}"] for (a, b), n in pairs.most_common(MOST_CONFUSED)]
    return rows


def _bought(steps: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["after", "pixels", "right", "accuracy", "log likelihood loss", "gained, lost", "McNemar p", "seconds"]]
    for step in steps:
        metrics, paired = step["metrics"], step["against_previous"]
        accuracy = metrics["accuracy"]
        rows.append(
            [
                step["name"],
                str(step["size"] or "own"),
                f"{metrics['correct']:,} of {metrics['n']:,}",
                f"{100 * accuracy['value']:.2f}% ({100 * accuracy['lower']:.2f} to {100 * accuracy['upper']:.2f})",
                f"{metrics['nll']['value']:.4f}",
                "" if paired is None else f"+{paired['gained']:,} -{paired['lost']:,}",
                "" if paired is None else f"{paired['p_value']:.2f}",
                f"{step['seconds']:.1f}",
            ]
        )
    return rows
