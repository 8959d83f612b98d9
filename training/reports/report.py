"""Renders the report of a run: one self-contained HTML page, without scripts or network access."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from serving.image.decode import decode
from serving.image.folders import Skipped
from training.data.images import LabelledImage
from training.evaluation.evaluation import Evaluation
from training.evaluation.metrics import Interval
from training.evaluation.test_time import describe_test_time
from training.reports.galleries import MAX_CLASSES, Gallery

THUMBNAIL = 176
MAX_LISTED = 20
MAX_ROWS = 30
"""Longer tables are folded, and unfold in columns."""

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--bad:#c0392b;--good:#1e8449}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:80rem}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
.lead{font-size:1.1rem}.note{opacity:.75;font-size:.9rem}
.plots{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}
.plots figure{margin:0;flex:1 1 20rem;max-width:36rem}
.plots img{width:100%;height:auto;background:#fff;border-radius:6px}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.6rem,1fr));gap:.6rem}
.images figure{margin:0;background:var(--soft);border-radius:6px;overflow:hidden}
.images img{width:100%;aspect-ratio:1;object-fit:cover;display:block}
figcaption{font-size:.8rem;padding:.25rem .4rem;overflow-wrap:anywhere}
.incorrect{color:var(--bad)}.correct{color:var(--good)}
summary{cursor:pointer}.long .table{columns:26rem}.long tr{break-inside:avoid}
.table{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}td.n{text-align:right}
li{overflow-wrap:anywhere}
@media(max-width:40rem){td,th{padding:.2rem .3rem;font-size:.8rem}}
"""


@dataclass(frozen=True)
class ReportContents:
    """The content of the report."""

    title: str
    evaluation: Evaluation
    images: Sequence[LabelledImage]
    """The evaluated images, in the order of the evaluation's rows."""
    galleries: Sequence[Gallery]
    plots: Mapping[str, bytes]
    """Title -> PNG."""
    tables: Mapping[str, Sequence[Sequence[str]]]
    """Title -> rows of cells, the header first."""
    facts: Mapping[str, str]
    """Settings, hardware, seconds of each part of the work, and library versions."""
    skipped: Sequence[Skipped]
    shared: Sequence[tuple[LabelledImage, LabelledImage]]
    contradictory: Sequence[tuple[LabelledImage, LabelledImage]]
    """Pairs of a training and a validation image with the same content."""


def render_report(contents: ReportContents, on_image: Callable[[int, int], None]) -> str:
    """The page as HTML; `on_image` is called with (thumbnails made, thumbnails in all)."""
    evaluation = contents.evaluation
    metrics, uncalibrated = evaluation.metrics, evaluation.uncalibrated
    accuracy = metrics.accuracy
    scores = "".join(
        f"<tr><td>{name}</td><td>{_interval(after)}</td><td>{_interval(before)}</td></tr>"
        for name, after, before in (
            ("negative log likelihood", metrics.nll, uncalibrated.nll),
            ("Brier score", metrics.brier, uncalibrated.brier),
            ("expected calibration error", metrics.ece, uncalibrated.ece),
        )
    )
    classes = len(evaluation.confusion.classes)
    of_many = f" Of {classes:,} classes, the {MAX_CLASSES} with the most mistakes have galleries of their own."
    parts = [
        f"<h1>{escape(contents.title)}</h1>",
        f'<p class="lead">Accuracy <b>{metrics.accuracy_text()}</b> on the validation images (95% interval '
        f"{100 * accuracy.lower:.2f}% to {100 * accuracy.upper:.2f}%).</p>",
        f'<div class="table"><table><tr><th></th><th>calibrated, temperature {evaluation.temperature:.3f}</th>'
        f"<th>as trained</th></tr>{scores}</table></div>",
        '<p class="note">With 95% bootstrap intervals; lower is better. The calibrated column is cross-fitted: no '
        "image is scored with a temperature that was fitted to it.</p>",
        *(f'<p class="incorrect">Warning: {escape(warning)}.</p>' for warning in evaluation.warnings()),
        *_test_time(evaluation),
        *(part for title, rows in contents.tables.items() for part in (f"<h2>{escape(title)}</h2>", _table(rows))),
        "<h2>Plots</h2>",
        '<div class="plots">',
        *(
            f'<figure><img alt="{escape(title)}" src="{_data_url(png, "png")}"><figcaption>{escape(title)}</figcaption>'
            "</figure>"
            for title, png in contents.plots.items()
        ),
        "</div>",
        "<h2>Images</h2>",
        '<p class="note">Each shows the prediction and its probability, then the label. The most incorrect images are '
        f"often mislabelled.{of_many if classes > MAX_CLASSES else ''}</p>",
        *_galleries(contents, on_image),
        "<h2>The run</h2>",
        '<div class="table"><table>'
        + "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in contents.facts.items())
        + "</table></div>",
    ]
    if contents.skipped:
        listed = [f"{skipped.path}: {skipped.reason}" for skipped in contents.skipped]
        parts += ["<h2>Files left out</h2>", _list(listed)]
    if contents.shared:
        listed = [f"{train.path} and {valid.path}" for train, valid in contents.shared]
        parts += [
            "<h2>The same image in training and validation</h2>",
            f'<p class="note">{len(contents.shared):,} validation images have the content (SHA-256) of a training '
            "image, which makes the accuracy too high.</p>",
            _list(listed),
        ]
    if contents.contradictory:
        listed = [f"{one.path} and {other.path}" for one, other in contents.contradictory]
        parts += [
            "<h2>The same image in two classes</h2>",
            f'<p class="note">{len(contents.contradictory):,} images have the content (SHA-256) of an image of another '
            "class: one of the labels is incorrect.</p>",
            _list(listed),
        ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(contents.title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>"
    )


def _galleries(contents: ReportContents, on_image: Callable[[int, int], None]) -> list[str]:
    classes = contents.evaluation.confusion.classes
    total = sum(len(gallery.indices) for gallery in contents.galleries)
    done = 0
    parts = []
    for gallery in contents.galleries:
        parts.append(f"<h3>{escape(gallery.title)}</h3>")
        if not gallery.indices:
            parts.append('<p class="note">None.</p>')
            continue
        parts.append('<div class="images">')
        for index in gallery.indices:
            image = contents.images[index]
            probabilities_K = contents.evaluation.probabilities_NK[index]
            predicted = int(probabilities_K.argmax())
            verdict = "correct" if predicted == image.label else "incorrect"
            parts.append(
                f'<figure><img loading="lazy" alt="" src="{_data_url(_thumbnail(image), "jpeg")}">'
                f'<figcaption><b class="{verdict}">{_name(classes[predicted])}</b> '
                f"{100 * probabilities_K[predicted]:.1f}%<br>label {_name(classes[image.label])} "
                f"({100 * probabilities_K[image.label]:.1f}%)<br>{_name(image.path.name)}</figcaption></figure>"
            )
            done += 1
            on_image(done, total)
        parts.append("</div>")
    return parts


def _thumbnail(image: LabelledImage) -> bytes:
    thumbnail = Image.fromarray(np.asarray(decode(image.read(), min_side=THUMBNAIL, limits=image.limits)))
    thumbnail.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _test_time(evaluation: Evaluation) -> list[str]:
    """The results of test-time augmentation beside those of one view, and what follows from them."""
    if not evaluation.test_time:
        return []
    one = evaluation.metrics
    rows = [["views", "correct", "fixed, broken", "McNemar p", "negative log likelihood", "change", "adaptive TTA"]]
    rows.append(["1", f"{one.correct:,}/{one.n:,}", "", "", _interval(one.nll), "", ""])
    for each in evaluation.test_time:
        metrics, paired, adaptive = each.metrics, each.paired, each.adaptive
        rows.append(
            [
                str(each.views),
                f"{metrics.correct:,}/{metrics.n:,}",
                f"+{paired.gained:,} -{paired.lost:,}",
                f"{paired.p_value:.2f}",
                _interval(metrics.nll),
                _interval(each.nll_change),
                f"{adaptive.correct:,}/{metrics.n:,} with {adaptive.mean_views:.2f} views an image, below a confidence "
                f"of {adaptive.threshold:.3f}",
            ]
        )
    note = (
        '<p class="note">Averages over several views of an image (renormalised geometric means), cross-fitted too.</p>'
    )
    return [
        "<h2>Test-time augmentation</h2>",
        f"<p>{escape(describe_test_time(evaluation.test_time))}</p>",
        _table(rows),
        note,
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    table = f'<div class="table"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'
    if len(rows) - 1 <= MAX_ROWS:
        return table
    return f'<details class="long"><summary>{len(rows) - 1:,} rows</summary>{table}</details>'


def _name(name: str) -> str:
    """A name in a sentence, isolated so that right-to-left text does not reorder the numbers after it."""
    return f"<bdi>{escape(name)}</bdi>"


def _list(lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - MAX_LISTED:,} more"] if len(lines) > MAX_LISTED else []
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in [*lines[:MAX_LISTED], *more]) + "</ul>"


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.lower:.4f} to {interval.upper:.4f})"


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
