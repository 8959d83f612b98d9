"""Writes what `evaluate --out` gives: a report, plots, a CSV of all images, and all figures as JSON."""

import csv
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from serving.image.folders import Skipped
from serving.system.files import write_atomically
from training.data.images import LabelledImage
from training.data.layout import listed, path_below
from training.evaluation.evaluation import Evaluation
from training.reports.galleries import choose_galleries
from training.reports.plots import plot_calibration, plot_confusion
from training.reports.report import ReportContents, write_report_files
from training.runs.run import Run

PREDICTIONS_FILE, FIGURES_FILE = "predictions.csv", "evaluation.json"
MAX_COLUMNS = 20
"""Classes with a column each; of more, the most probable are listed."""
TOP = 5
MAX_TITLE_CLASSES = 8


def write_evaluation(
    folder: Path, run: Run, data: Path, evaluation: Evaluation, images: Sequence[LabelledImage], skipped: list[Skipped]
) -> None:
    """Write the files; those of an earlier evaluation are replaced.

    Args:
        data: the folder that paths are relative to.
        images: in the order of the evaluation's rows.
    """
    classes = evaluation.confusion.classes
    contents = ReportContents(
        title=f"Evaluation of {run.folder.name}: {listed(classes, MAX_TITLE_CLASSES)}",
        cards=[("images", f"{len(images):,}", ""), ("classes", f"{len(classes):,}", ""), ("network", run.arch, "")],
        evaluation=evaluation,
        images=images,
        galleries=choose_galleries(evaluation.probabilities_NK, evaluation.labels_N, classes, seed=0),
        plots={
            "confusion": ("Confusion matrix", plot_confusion(evaluation.confusion)),
            "calibration": ("Calibration: accuracy by confidence", plot_calibration(*evaluation.calibration())),
        },
        facts={"run": str(run.folder), "data": str(data)},
        command=shlex.join(
            ["python", "-m", "training", "evaluate", "--run", str(run.folder), "--data", str(data)]
            + ["--views", str(max((each.views for each in evaluation.test_time), default=1)), "--out", str(folder)]
        ),
        skipped=skipped,
    )
    write_report_files(folder, contents)
    with (folder / PREDICTIONS_FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(prediction_rows(evaluation, images, data))
    facts = evaluation.to_json() | {
        "classes": list(classes),
        "run": str(run.folder),
        "data": str(data),
        "skipped": [each.to_json() for each in skipped],
    }
    write_atomically(folder / FIGURES_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def prediction_rows(evaluation: Evaluation, images: Sequence[LabelledImage], data: Path) -> Iterator[list[str]]:
    """A header, and a row for each image: path, label, predicted, and the probability of each class or of the first."""
    classes, few = evaluation.confusion.classes, len(evaluation.confusion.classes) <= MAX_COLUMNS
    ranked = [f"{what}_{rank}" for rank in range(1, TOP + 1) for what in ("class", "p")]
    yield ["path", "label", "predicted", *([f"p_{name}" for name in classes] if few else ranked)]
    for image, row_K in zip(images, evaluation.probabilities_NK, strict=True):
        if few:
            cells = [f"{p:.6f}" for p in row_K]
        else:
            best = np.argsort(-row_K, kind="stable")[:TOP]
            cells = [cell for k in best for cell in (classes[k], f"{row_K[k]:.6f}")]
        yield [path_below(image.path, data), classes[image.label], classes[int(row_K.argmax())], *cells]
