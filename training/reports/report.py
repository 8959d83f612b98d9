"""Probabilities and truth in; which images to look at out: the recipe's five galleries.

A run's results in; one self-contained report.html to look at out: no script, no network.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import decode
from training.data.images import LabelledImage, Skipped
from training.evaluation.evaluation import Evaluation, TestTime
from training.evaluation.metrics import Interval

PER_GALLERY = 8
MAX_CLASSES = 20
"""Classes shown in the galleries that have an entry a class: with more, those with the most mistakes."""


@dataclass(frozen=True)
class Gallery:
    """A titled choice of images."""

    title: str
    indices: list[int]
    """Into the evaluated images, in the order to show them."""


def choose_galleries(
    probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64], classes: tuple[str, ...], *, seed: int
) -> list[Gallery]:
    """The five galleries of the recipe; the last three have one entry a class.

    Most correct of y: highest p_y where truth and prediction are y. Most incorrect of y: lowest p_y where the truth
    is y and the prediction another. Most uncertain of y: smallest |p_y - 1/K| where the truth is y.
    """
    predicted = probabilities_NK.argmax(1)
    right = predicted == labels_N
    rng = np.random.default_rng(seed)
    galleries = [
        Gallery("A few correct at random", _sample(rng, np.flatnonzero(right))),
        Gallery("A few incorrect at random", _sample(rng, np.flatnonzero(~right))),
    ]
    shown = _shown(labels_N, right)
    p_true = probabilities_NK[np.arange(len(labels_N)), labels_N]
    for title, wanted, rank in (
        ("Most correct", right, -p_true),
        ("Most incorrect", ~right, p_true),
        ("Most uncertain", np.ones_like(right), np.abs(p_true - 1 / len(classes))),
    ):
        for label in shown:
            inside = np.flatnonzero(wanted & (labels_N == label))
            ranked = inside[np.argsort(rank[inside], kind="stable")]
            galleries.append(Gallery(f"{title}: {classes[label]}", ranked[:PER_GALLERY].tolist()))
    return galleries


def _shown(labels_N: NDArray[np.int64], right: NDArray[np.bool_]) -> list[int]:
    """All classes or, of very many, those with the most mistakes."""
    present = np.unique(labels_N)
    if len(present) <= MAX_CLASSES:
        return [int(label) for label in present]
    mistakes = np.bincount(labels_N[~right], minlength=int(present[-1]) + 1)[present]
    return sorted(int(label) for label in present[np.argsort(-mistakes, kind="stable")[:MAX_CLASSES]])


def _sample(rng: np.random.Generator, indices: NDArray[np.int64]) -> list[int]:
    return sorted(rng.choice(indices, min(PER_GALLERY, len(indices)), replace=False).tolist())


THUMBNAIL = 176
MAX_LISTED = 20

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
.wrong{color:var(--bad)}.right{color:var(--good)}
.table{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}td.n{text-align:right}
li{overflow-wrap:anywhere}
@media(max-width:40rem){td,th{padding:.2rem .3rem;font-size:.8rem}}
"""


@dataclass(frozen=True)
class ReportContents:
    """All that the report shows."""

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
    """What was trained, on what, and how long each stage took."""
    skipped: Sequence[Skipped]
    shared: Sequence[tuple[LabelledImage, LabelledImage]]
    """The same image in training and in validation."""


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
    parts = [
        f"<h1>{escape(contents.title)}</h1>",
        f'<p class="lead"><b>{100 * accuracy.value:.1f}%</b> of {metrics.n:,} validation images are right '
        f"({metrics.n - metrics.correct:,} wrong; 95% interval {100 * accuracy.lower:.1f}% to "
        f"{100 * accuracy.upper:.1f}%).</p>",
        f'<div class="table"><table><tr><th></th><th>calibrated, temperature {evaluation.temperature:.3f}</th>'
        f"<th>as trained</th></tr>{scores}</table></div>",
        '<p class="note">With 95% bootstrap intervals; lower is better. The calibrated column is cross-fitted: no '
        "image is scored with a temperature that it helped to find.</p>",
        *_test_time(evaluation.test_time),
        *(part for title, rows in contents.tables.items() for part in (f"<h2>{escape(title)}</h2>", _table(rows))),
        "<h2>Plots</h2>",
        '<div class="plots">',
        *(
            f'<figure><img alt="{escape(title)}" src="{_data_url(png, "png")}"><figcaption>{escape(title)}</figcaption>'
            "</figure>"
            for title, png in contents.plots.items()
        ),
        "</div>",
        "<h2>Images to look at</h2>",
        '<p class="note">Each shows what it is taken for and how sure the network is, then what it is said to be. '
        f"Images among the most incorrect are often mislabelled.{_of_many(len(evaluation.confusion.classes))}</p>",
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
            f'<p class="note">{len(contents.shared):,} validation images have the contents (SHA-256) of a training '
            "image. They make validation look better than it is.</p>",
            _list(listed),
        ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(contents.title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>"
    )


def _of_many(classes: int) -> str:
    if classes <= MAX_CLASSES:
        return ""
    return f" Of {classes:,} classes, the {MAX_CLASSES} with the most mistakes have galleries of their own."


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
            verdict = "right" if predicted == image.label else "wrong"
            parts.append(
                f'<figure><img loading="lazy" alt="" src="{_data_url(_thumbnail(image), "jpeg")}">'
                f'<figcaption><b class="{verdict}">{_name(classes[predicted])}</b> '
                f"{100 * probabilities_K[predicted]:.1f}%<br>is {_name(classes[image.label])} "
                f"({100 * probabilities_K[image.label]:.1f}%)<br>{_name(image.path.name)}</figcaption></figure>"
            )
            done += 1
            on_image(done, total)
        parts.append("</div>")
    return parts


def _thumbnail(image: LabelledImage) -> bytes:
    thumbnail = Image.fromarray(np.asarray(decode(image.read(), min_side=THUMBNAIL)))
    thumbnail.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _test_time(test_time: TestTime | None) -> list[str]:
    """What averaging over views does, in a sentence or two."""
    if test_time is None:
        return []
    metrics, paired, adaptive = test_time.metrics, test_time.paired, test_time.adaptive
    return [
        f"<p>Averaged over {test_time.views} views, <b>{100 * metrics.accuracy.value:.1f}%</b> are right: "
        f"{paired.gained:,} images gained and {paired.lost:,} lost (McNemar's exact test: p = {paired.p_value:.2f}); "
        f"negative log likelihood {_interval(metrics.nll)}, Brier score {_interval(metrics.brier)}, expected "
        f"calibration error {_interval(metrics.ece)}. Looking again only below a confidence of "
        f"{adaptive.threshold:.3f} has {adaptive.correct:,} right with {adaptive.mean_views:.2f} views an image.</p>"
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="table"><table><tr>{header}</tr>{body}</table></div>'


def _name(name: str) -> str:
    """A name beside other words: one that runs from right to left must not turn the numbers after it."""
    return f"<bdi>{escape(name)}</bdi>"


def _list(lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - MAX_LISTED:,} more"] if len(lines) > MAX_LISTED else []
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in [*lines[:MAX_LISTED], *more]) + "</ul>"


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.lower:.4f} to {interval.upper:.4f})"


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
