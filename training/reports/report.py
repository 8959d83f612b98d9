"""Renders the report of a run: one self-contained HTML page, without scripts or network access."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from serving.comparison.proportions import Interval
from serving.image.folders import Skipped
from serving.system.files import write_atomically
from training.checks.data_checks import DataChecks
from training.console import counted, progress
from training.data.images import LabelledImage
from training.evaluation.evaluation import Evaluation
from training.evaluation.test_time import describe_test_time
from training.reports.data_page import data_sections, leak_lines
from training.reports.figures import Plot
from training.reports.galleries import MAX_CLASSES, Gallery
from training.reports.page import (
    Anchors,
    Section,
    Tile,
    cards,
    class_rows,
    data_url,
    document,
    facts_table,
    listing,
    name,
    table,
)
from training.reports.page import gallery as gallery_of
from training.reports.tiles import jpeg, prediction

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class ReportContents:
    """The content of the report."""

    title: str
    cards: Sequence[tuple[str, str, str]]
    """Name, value and note of the figures that matter beside the accuracy."""
    evaluation: Evaluation
    images: Sequence[LabelledImage]
    """The evaluated images, in the order of the evaluation's rows."""
    galleries: Sequence[Gallery]
    plots: Mapping[str, tuple[str, Plot | bytes]]
    """Name -> title, and the plot or a PNG."""
    facts: Mapping[str, str]
    """Settings, hardware, seconds of each part of the work, and library versions."""
    command: str
    """Repeats the work."""
    skipped: Sequence[Skipped]
    overlays: Sequence[tuple[int, bytes]] = ()
    """Place of an image, and a JPEG with its Grad-CAM map."""
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Title -> rows of cells, the header first."""
    shared: Sequence[tuple[LabelledImage, LabelledImage]] = ()
    """Pairs of a training and a validation image with the same content."""
    contradictory: Sequence[tuple[LabelledImage, LabelledImage]] = ()
    """Pairs of images with the same content in two classes."""
    checks: DataChecks | None = None
    """Checks of the data; None if it was not checked."""

    def predicted(self, index: int) -> str:
        """The predicted class of an image and its probability, as HTML."""
        classes, row_K = self.evaluation.confusion.classes, self.evaluation.probabilities_NK[index]
        return prediction(classes[int(row_K.argmax())], classes[self.images[index].label], float(row_K.max()))


def render_report(contents: ReportContents, on_image: Callable[[int, int], None]) -> str:
    """The page as HTML; `on_image` is called with (thumbnails made, thumbnails in all)."""
    evaluation, anchors = contents.evaluation, Anchors()
    metrics, accuracy = evaluation.metrics, evaluation.metrics.accuracy
    interval = f"95% interval {100 * accuracy.lower:.2f}% to {100 * accuracy.upper:.2f}%"
    head = [
        cards(
            [
                ("accuracy", f"{100 * accuracy.value:.2f}%", f"{metrics.correct:,}/{metrics.n:,}; {interval}"),
                *contents.cards,
            ]
        ),
        *(f'<p class="warning">Warning: {escape(warning)}.</p>' for warning in evaluation.warnings()),
        *_leaks(contents),
    ]
    sections = [
        Section("results", "Results", _results(contents)),
        Section("plots", "Plots", _plots(contents)),
        Section("images", "Images", _galleries(contents, anchors, on_image)),
        *_seen(contents, anchors),
        *(data_sections(contents.checks, anchors) if contents.checks else ()),
        *_left_out(contents),
        Section("run", "The run", [facts_table(contents.facts), *_repeat(contents)]),
    ]
    return document(contents.title, head, sections)


def write_report_files(folder: Path, contents: ReportContents) -> None:
    """Write report.html and plots/*.png into a folder; earlier ones are replaced."""
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for key, (_, plot) in contents.plots.items():
        write_atomically(folder / "plots" / f"{key}.png", plot if isinstance(plot, bytes) else plot.png())
    with progress("report") as on_progress:
        write_atomically(folder / REPORT_FILE, render_report(contents, on_progress))


def _leaks(contents: ReportContents) -> list[str]:
    """How many validation images are copies of training images, with the accuracy with and without them."""
    checks, evaluation = contents.checks, contents.evaluation
    if checks is None:
        return []
    places = {image.path: at for at, image in enumerate(checks.images)}
    leaked = set(checks.leaks())
    clean_N = np.array([places.get(image.path) not in leaked for image in contents.images])
    accuracies = [
        f"{100 * part.mean():.2f}% ({int(part.sum()):,}/{len(part):,})" if len(part) else "none"
        for part in (evaluation.correct_N, evaluation.correct_N[clean_N])
    ]
    return leak_lines(checks, accuracies)


def _results(contents: ReportContents) -> list[str]:
    evaluation = contents.evaluation
    metrics, uncalibrated = evaluation.metrics, evaluation.uncalibrated
    scores = [["", f"calibrated, temperature {evaluation.temperature:.3f}", "as trained"]]
    scores += [
        [name, _interval(after), _interval(before)]
        for name, after, before in (
            ("negative log likelihood", metrics.nll, uncalibrated.nll),
            ("Brier score", metrics.brier, uncalibrated.brier),
            ("expected calibration error", metrics.ece, uncalibrated.ece),
        )
    ]
    return [
        table(scores),
        '<p class="note">With 95% bootstrap intervals; lower is better. The calibrated column is cross-fitted: no '
        "image is scored with a temperature that was fitted to it.</p>",
        "<h3>Results by class</h3>",
        table(class_rows(evaluation.class_report)),
        *(
            f"<p>The label is among the {k} most probable classes in {100 * rate.value:.2f}% of the images (95% "
            f"interval {100 * rate.lower:.2f}% to {100 * rate.upper:.2f}%).</p>"
            for k, rate in evaluation.top_k.items()
        ),
        *_test_time(evaluation),
        *(part for title, rows in contents.tables.items() for part in (f"<h3>{escape(title)}</h3>", table(rows))),
    ]


def _plots(contents: ReportContents) -> list[str]:
    parts = ['<div class="plots">']
    for key, (title, plot) in contents.plots.items():
        text = escape(title)
        drawn = f'<img alt="{text}" src="{data_url(plot, "png")}">' if isinstance(plot, bytes) else plot.svg(key, text)
        parts.append(f"<figure><figcaption>{text}</figcaption>{drawn}</figure>")
    return [*parts, "</div>"]


def _galleries(contents: ReportContents, anchors: Anchors, on_image: Callable[[int, int], None]) -> list[str]:
    classes = contents.evaluation.confusion.classes
    total = sum(len(gallery.indices) for gallery in contents.galleries)
    of_many = f" Of {len(classes):,} classes, the {MAX_CLASSES} with the most mistakes have galleries of their own."
    parts = [
        '<p class="note">Each shows the prediction and its probability, then the label. A click enlarges an image. The '
        f"most incorrect images are often mislabelled.{of_many if len(classes) > MAX_CLASSES else ''}</p>"
    ]
    for gallery in contents.galleries:
        tiles = []
        for index in gallery.indices:
            image, probabilities_K = contents.images[index], contents.evaluation.probabilities_NK[index]
            label = classes[image.label]
            tiles.append(
                Tile(
                    jpeg(image),
                    f"{contents.predicted(index)}<br>label {name(label)} ({100 * probabilities_K[image.label]:.1f}%)"
                    f'<br><span class="dim">{name(image.path.name)}</span>',
                    f"predicted {classes[int(probabilities_K.argmax())]}, label {label}",
                )
            )
            on_image(anchors.count + len(tiles), total)
        parts += [f"<h3>{escape(gallery.title)}</h3>", gallery_of(tiles, anchors, "images")]
    return parts


def _seen(contents: ReportContents, anchors: Anchors) -> list[Section]:
    """Grad-CAM of the least certain and of the most incorrect images."""
    if not contents.overlays:
        return []
    tiles = []
    for index, jpeg_bytes in contents.overlays:
        image = contents.images[index]
        text = f"{contents.predicted(index)}<br>label {name(contents.evaluation.confusion.classes[image.label])}"
        tiles.append(Tile(jpeg_bytes, text, f"Grad-CAM of {image.path.name}"))
    note = (
        "<p>Red marks the parts of an image that speak for the predicted class (Grad-CAM, Selvaraju et al. 2017), in "
        "incorrect images, the most certain first, then in the least certain ones. If the background is red, the "
        "network has learnt the background.</p>"
    )
    return [Section("seen", "What the network sees", [note, gallery_of(tiles, anchors, "seen")])]


def _left_out(contents: ReportContents) -> list[Section]:
    """Files that were left out, unless the data sections list them, and identical files that are in two places."""
    parts = []
    if contents.skipped and contents.checks is None:
        parts += ["<h3>Files left out</h3>", listing([f"{each.path}: {each.reason}" for each in contents.skipped])]
    if contents.shared:
        parts += [
            "<h3>The same file in training and validation</h3>",
            f'<p class="note">{counted(len(contents.shared), "validation image")} with the content (SHA-256) of a '
            "training image: the accuracy is too high.</p>",
            listing([f"{train.path} and {valid.path}" for train, valid in contents.shared]),
        ]
    if contents.contradictory:
        parts += [
            "<h3>The same file in two classes</h3>",
            f'<p class="note">{counted(len(contents.contradictory), "image")} with the content (SHA-256) of an image '
            "of another class: one of the labels is incorrect.</p>",
            listing([f"{one.path} and {other.path}" for one, other in contents.contradictory]),
        ]
    return [Section("files", "Files", parts)] if parts else []


def _repeat(contents: ReportContents) -> list[str]:
    return [
        "<h3>How to repeat it</h3>",
        f"<pre>{escape(contents.command)}</pre>",
        '<p class="note">With the versions and the data above. Everything random depends on the seed: in one process '
        "on a CPU, the same images give the same weights bit for bit.</p>",
    ]


def _test_time(evaluation: Evaluation) -> list[str]:
    """The results of test-time augmentation beside those of one view, and what follows from them."""
    if not evaluation.test_time:
        return []
    one = evaluation.metrics
    rows = [["views", "correct", "fixed, broken", "McNemar p", "negative log likelihood", "change", "adaptive TTA"]]
    rows.append(["1", f"{one.correct:,}/{one.n:,}", "", "", _interval(one.nll), "", ""])
    for each in evaluation.test_time:
        metrics, paired = each.metrics, each.paired
        rows.append(
            [
                str(each.views),
                f"{metrics.correct:,}/{metrics.n:,}",
                f"+{paired.fixed:,} -{paired.broken:,}",
                f"{paired.p_value:.2f}",
                _interval(metrics.nll),
                _interval(each.nll_change),
                each.adaptive.describe(metrics.n),
            ]
        )
    sentence = describe_test_time(evaluation.test_time)
    note = (
        '<p class="note">Averages over several views of an image (renormalised geometric means), cross-fitted too.</p>'
    )
    return [
        "<h3>Test-time augmentation</h3>",
        f"<p>{escape(sentence[:1].upper() + sentence[1:])}.</p>",
        table(rows),
        note,
    ]


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.lower:.4f} to {interval.upper:.4f})"
