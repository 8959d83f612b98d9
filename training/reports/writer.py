"""Writes the report of a fit: report.html and plots/*.png."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.checks.data_checks import DataChecks
from training.data.augment import contact_sheet
from training.data.images import or_reason
from training.data.layout import listed
from training.data.sources import random_batches
from training.evaluation.evaluation import Evaluation
from training.evaluation.metrics import compare
from training.evaluation.trials import Trial
from training.fitting.checkpoint import StepResult
from training.fitting.session import MAX_CLASSES, FitSession
from training.fitting.steps import FitResult
from training.reports.figures import Plot
from training.reports.galleries import choose_galleries
from training.reports.grad_cam import overlays
from training.reports.plots import (
    MAX_LABELLED_CLASSES,
    RatesOverTime,
    plot_calibration,
    plot_confusion,
    plot_losses,
    plot_lr_curve,
    plot_rates,
    rates_over_time,
)
from training.reports.report import ReportContents, write_report_files
from training.reports.tiles import jpeg_of
from training.versions import versions

SHEET_TILE = 160
MAX_OVERLAYS = 8
"""Incorrect images, and uncertain ones, with a Grad-CAM map."""
MAX_CONFUSED = 10


def step_facts(results: Sequence[StepResult]) -> list[dict[str, Any]]:
    """The results after each step, and the paired comparison with the step before (McNemar)."""
    facts: list[dict[str, Any]] = []
    before: NDArray[np.bool_] | None = None
    for result in results:
        correct = result.correct.cpu().numpy()
        # if an image became unreadable in between, they are not of the same images
        paired = None if before is None or len(before) != len(correct) else compare(before, correct).to_json()
        before = correct
        facts.append(
            {"name": result.name, "size": result.size, "part": result.part, "seconds": round(result.seconds, 3)}
            | {"metrics": result.metrics, "against_previous": paired}
        )
    return facts


def write_report(
    session: FitSession,
    result: FitResult,
    evaluation: Evaluation,
    steps: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
    checks: DataChecks | None,
    command: str,
) -> None:
    """Write report.html and plots/*.png into the session's folder.

    Args:
        steps: as `step_facts` gives them.
        seconds: of each part of the work.
        checks: of the data; None if it was not checked.
        command: repeats the run.
    """
    recipe, split = session.recipe, session.split
    confused = _most_confused(evaluation)
    contents = ReportContents(
        title=f"{recipe.arch}: {listed(split.classes, MAX_CLASSES)}",
        cards=[
            ("images", f"{len(split.train) + len(split.valid):,}", f"{len(split.train):,} trained on"),
            ("classes", f"{len(split.classes):,}", ""),
            ("network", recipe.arch, f"{recipe.last_size or session.backbone.preprocess.crop} pixels"),
            ("weights", f"{sum(map(torch.numel, result.network.parameters())) / 1e6:,.1f} M", "parameters"),
            ("time", f"{sum(seconds.values()):,.0f} s", f"{session.hardware}"),
        ],
        evaluation=evaluation,
        images=split.valid,
        galleries=choose_galleries(
            evaluation.probabilities_NK, evaluation.labels_N, evaluation.confusion.classes, seed=recipe.seed
        ),
        plots=_plots(session, result, evaluation),
        overlays=_overlays(session, result, evaluation),
        tables={
            "Results by stage": _results_by_stage(steps, session.backbone.preprocess.crop),
            **({"Steps tried on held-out training images": _trials(trials)} if (trials := result.state.trials) else {}),
            **({"Most often confused": confused} if len(confused) > 1 else {}),
            **({"Classes by number": _classes(evaluation)} if len(split.classes) > MAX_LABELLED_CLASSES else {}),
            **{f"Layer groups: {trace.step.name}": trace.groups for trace in result.traces},
        },
        facts={
            "images": f"{len(split.train):,} for training, {len(split.valid):,} for validation",
            **({"labels from serving": _labels(session.labels)} if session.labels else {}),
            "hardware": f"{session.hardware}; training processes: {session.processes.count}",
            "recipe": _settings({name: value for name, value in recipe.as_fields().items() if name != "stages"}),
            **{f"stage {name}": _settings(fields) for name, fields in recipe.as_fields()["stages"].items()},
            **{f"seconds: {name}": f"{value:.1f}" for name, value in seconds.items()},
            "versions": _settings(versions()),
            "data (fingerprint)": split.fingerprint(),
        },
        command=command,
        skipped=session.skipped,
        shared=split.shared(),
        contradictory=split.contradictory(),
        checks=checks,
    )
    write_report_files(session.folder, contents)


def _labels(record: Mapping[str, Any]) -> str:
    outcomes = "; ".join(f"{outcome['count']:,} {what}" for what, outcome in record["outcomes"].items())
    return f"{record['file']}: {outcomes}"


def _overlays(session: FitSession, result: FitResult, evaluation: Evaluation) -> list[tuple[int, bytes]]:
    """Grad-CAM of incorrect images, the most certain first, and of the least certain of the others."""
    highest_N, correct_N = evaluation.probabilities_NK.max(1), evaluation.correct_N
    incorrect = sorted(np.flatnonzero(~correct_N).tolist(), key=lambda at: -highest_N[at])[:MAX_OVERLAYS]
    uncertain = sorted(np.flatnonzero(correct_N).tolist(), key=lambda at: highest_N[at])[:MAX_OVERLAYS]
    chosen = [*incorrect, *uncertain]
    preprocess = session.backbone.preprocess_at(session.recipe.last_size)
    images = overlays(result.network, [session.split.valid[at] for at in chosen], preprocess)
    return [(at, jpeg_of(image, 320)) for at, image in zip(chosen, images, strict=True) if image is not None]


def _plots(session: FitSession, result: FitResult, evaluation: Evaluation) -> dict[str, tuple[str, Plot | bytes]]:
    """File name -> title, and the plot or a PNG."""
    recipe = session.recipe
    plots: dict[str, tuple[str, Plot | bytes]] = {
        "losses": ("Losses and accuracy by epoch", plot_losses(result.state.history)),
        "rates": ("Learning rate and momentum by epoch", plot_rates(_rates(session, result))),
        "confusion": ("Confusion matrix of the validation images", plot_confusion(evaluation.confusion)),
        "calibration": ("Calibration: accuracy by confidence", plot_calibration(*evaluation.calibration())),
    }
    for number, curve in enumerate(result.state.curves, 1):
        plots[f"lr-finder-{number}"] = (f"Learning-rate range test: {curve.name}", plot_lr_curve(curve))
    stages = [trace.step.stage for trace in result.traces if trace.step.stage.learn_from == "images"]
    if augment := next((stage.augment for stage in stages if stage.augment != "none"), None):
        images, first = session.split.train, recipe.seed % len(session.split.train)
        preprocess = session.backbone.preprocess_at(SHEET_TILE)
        canvases = (or_reason(partial(image.canvas, preprocess)) for image in images[first:] + images[:first])
        canvas = next((each for each in canvases if not isinstance(each, str)), None)
        if canvas is not None:  # some image can still be read
            buffer = io.BytesIO()
            contact_sheet(canvas, augment, SHEET_TILE, recipe.seed).save(buffer, "PNG")
            plots["augmentation"] = (f"One image augmented sixteen times: {augment}", buffer.getvalue())
    return plots


def _rates(session: FitSession, result: FitResult) -> list[RatesOverTime]:
    parts, first_epoch = [], 0
    recipe, smallest = session.recipe, 2 * session.processes.count
    for trace in result.traces:
        stage = trace.step.stage
        per_epoch = len(random_batches(trace.rows, recipe.batch_size, 0, smallest=smallest))
        parts.append(
            rates_over_time(stage, trace.rates, per_epoch=per_epoch, momentum=recipe.momentum, first_epoch=first_epoch)
        )
        first_epoch += stage.epochs
    return parts


def _trials(trials: Sequence[Trial]) -> list[list[str]]:
    """Measurements of each step, and of its mixtures with the step before, on held-out training images."""
    header = ["step", "kept", "part", "errors", "errors, shifted copies", "log loss", "log loss, shifted copies"]
    rows = [[*header, "change (standard error)", "fixed, broken", "McNemar p"]]
    for trial in trials:
        for each in trial.candidates[1:] or trial.candidates:
            change = f"{each.nll_change:+.4f} ({each.standard_error:.4f})"
            compared = [change, f"+{each.paired.fixed:,} -{each.paired.broken:,}", f"{each.paired.p_value:.2f}"]
            rows.append(
                [
                    trial.name,
                    "yes" if each.part == trial.part else "no",
                    f"{each.part:.0%}",
                    f"{each.errors:,}/{trial.images:,}",
                    f"{each.shifted_errors:,}/{trial.images:,}",
                    f"{each.nll:.4f}",
                    f"{each.shifted_nll:.4f}",
                    *(compared if len(trial.candidates) > 1 else ["", "", ""]),
                ]
            )
    return rows


def _settings(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _most_confused(evaluation: Evaluation) -> list[list[str]]:
    """Pairs of classes, the most frequent mistakes first: with many classes the matrix is too large to read."""
    rows = [["label", "predicted", "images"]]
    classes, wrong = evaluation.confusion.classes, ~evaluation.correct_N
    pairs = Counter(zip(evaluation.labels_N[wrong].tolist(), evaluation.predicted_N[wrong].tolist(), strict=True))
    if len(classes) > 2:
        rows += [[classes[a], classes[b], f"{n:,}"] for (a, b), n in pairs.most_common(MAX_CONFUSED)]
    return rows


def _classes(evaluation: Evaluation) -> list[list[str]]:
    """The classes, numbered as in the plot of the confusion matrix."""
    counts_KK = evaluation.confusion.counts_KK
    rows = zip(evaluation.confusion.classes, counts_KK.sum(1), counts_KK.diagonal(), strict=True)
    header = ["number", "class", "images", "correct"]
    return [header, *([f"{at:,}", name, f"{n:,}", f"{correct:,}"] for at, (name, n, correct) in enumerate(rows))]


def _results_by_stage(steps: Sequence[Mapping[str, Any]], pixels: int) -> list[list[str]]:
    """The table; `pixels` are the backbone's own, of steps at no other size."""
    rows = [["after", "pixels", "correct", "accuracy", "log likelihood loss", "fixed, broken", "McNemar p", "seconds"]]
    for step in steps:
        metrics, paired = step["metrics"], step["against_previous"]
        accuracy = metrics["accuracy"]
        rows.append(
            [
                step["name"] if step["part"] == 1 else f"{step['name']}, {step['part']:.0%} of its change",
                str(step["size"] or pixels),
                f"{metrics['correct']:,}/{metrics['n']:,}",
                f"{100 * accuracy['value']:.2f}% ({100 * accuracy['lower']:.2f} to {100 * accuracy['upper']:.2f})",
                f"{metrics['nll']['value']:.4f}",
                "" if paired is None else f"+{paired['gained']:,} -{paired['lost']:,}",
                "" if paired is None else f"{paired['p_value']:.2f}",
                f"{step['seconds']:.1f}",
            ]
        )
    return rows
