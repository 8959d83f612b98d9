"""The page of a comparison: self-contained HTML without scripts."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from training.comparison.plots import Metric, plot_metric
from training.comparison.rows import class_rows, pair_rows, result_rows, verdict, warnings
from training.comparison.runs import ComparedRun, Pair, setting_rows
from training.reports.page import Anchors, Section, Tile, cards, document, gallery, name, table
from training.reports.tiles import jpeg, prediction

MAX_IMAGES = 12
"""Fixed images, and broken ones, of a pair."""
MAX_SHOWN = 48
"""Images shown of all pairs together."""


def comparison_page(
    runs: Sequence[ComparedRun], pairs: Sequence[Pair], on_image: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """The page as HTML; `on_image` is called with (thumbnails made, thumbnails in all)."""
    head = [
        cards([_card(each) for each in runs]),
        *(f'<p class="warning">Warning: {escape(warning)}.</p>' for warning in warnings(pairs)),
        *(f"<p>{escape(verdict(pair))}.</p>" for pair in pairs),
    ]
    sections = [
        Section("results", "Results", _results(runs, pairs)),
        Section("curves", "Curves", _curves(runs)),
        Section("classes", "Classes", [part for pair in pairs for part in _classes(pair)]),
        Section("images", "Images that changed", _images(pairs, on_image)),
        Section("settings", "Settings and data", _settings(runs)),
    ]
    return document(f"Comparison of {', '.join(each.name for each in runs)}", head, sections)


def _card(run: ComparedRun) -> tuple[str, str, str]:
    metrics = run.run.facts["metrics"]
    accuracy = metrics["accuracy"]
    interval = f"95% interval {100 * accuracy['lower']:.2f}% to {100 * accuracy['upper']:.2f}%"
    note = f"{metrics['correct']:,}/{metrics['n']:,}; {interval}"
    return run.name, f"{100 * accuracy['value']:.2f}%", note


def _results(runs: Sequence[ComparedRun], pairs: Sequence[Pair]) -> list[str]:
    return [
        "<h3>Each run on its own validation images</h3>",
        table(result_rows(runs)),
        f"<h3>Against {name(runs[0].name)}, on the same images</h3>",
        table(pair_rows(pairs)),
        f'<p class="note">An image is fixed if only the run classifies it correctly, broken if only '
        f"{name(runs[0].name)} does. Images are the same if their content (SHA-256) and their label are. The test is "
        "McNemar's exact one, two-sided, and not adjusted for the number of runs; the interval of the difference is "
        "Newcombe's for pairs (1998), that of the log loss a paired bootstrap. The predictions are those of one "
        "view.</p>",
    ]


def _curves(runs: Sequence[ComparedRun]) -> list[str]:
    curves: tuple[tuple[Metric, str, str], ...] = (
        ("valid_loss", "Validation loss by epoch", "negative log likelihood (nats)"),
        ("valid_accuracy", "Validation accuracy by epoch", "accuracy (%)"),
        ("train_loss", "Training loss by epoch", "negative log likelihood (nats)"),
        ("lr", "Learning rate at the end of each epoch", "learning rate of the last layer group"),
    )
    figures = [(key, title, plot_metric(runs, key, label)) for key, title, label in curves]
    drawn = (f"<figure><figcaption>{title}</figcaption>{plot.svg(key, title)}</figure>" for key, title, plot in figures)
    return ['<div class="plots">', *drawn, "</div>"]


def _classes(pair: Pair) -> list[str]:
    return [f"<h3>{name(pair.second.name)} against {name(pair.first.name)}</h3>", table(class_rows(pair))]


def _images(pairs: Sequence[Pair], on_image: Callable[[int, int], None]) -> list[str]:
    anchors, parts = Anchors(), []
    most = max(min(MAX_IMAGES, MAX_SHOWN // (2 * len(pairs))), 2)
    chosen = [(pair, fixed, pair.changed(fixed=fixed)) for pair in pairs for fixed in (True, False)]
    total = sum(min(len(rows), most) for _, _, rows in chosen)
    for pair, fixed, rows in chosen:
        words = f"{'Fixed' if fixed else 'Broken'} by {name(pair.second.name)}"
        more = f", the {most} most certain" if len(rows) > most else ""
        tiles = []
        for first, second in rows[:most]:
            tiles.append(_tile(pair, first, second))
            on_image(anchors.count + len(tiles), total)
        parts += [f"<h3>{words}: {len(rows):,}{more}</h3>", gallery(tiles, anchors, "images")]
    return parts


def _tile(pair: Pair, first: int, second: int) -> Tile:
    image, label = pair.first.images[first], pair.first.labels[first]
    words = []
    for run, row in ((pair.first, first), (pair.second, second)):
        highest = float(np.nanmax(run.probabilities_NK[row]))
        words.append(f"{name(run.name)}: {prediction(run.predicted[row], label, highest)}")
    text = "<br>".join([*words, f"label {name(label)}", f'<span class="dim">{name(image.path.name)}</span>'])
    return Tile(jpeg(image), text, f"label {label}")


def _settings(runs: Sequence[ComparedRun]) -> list[str]:
    rows = setting_rows(runs)
    if not rows:
        return ["<p>The runs have the same settings and data.</p>"]
    header = ["setting", *(each.name for each in runs)]
    return [
        '<p class="note">Only what differs. Fingerprints are the first digits of SHA-256 sums.</p>',
        table([header, *rows]),
    ]
