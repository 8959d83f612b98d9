"""data.html and the report's sections on the data: suspects, duplicates and what the images are like."""

from collections.abc import Sequence
from html import escape

import numpy as np

from serving.image.folders import describe_skipped
from training.checks.data_checks import DataChecks
from training.checks.files import DUPLICATES_FILE, SUSPECTS_FILE
from training.checks.summary import size_table
from training.console import counted
from training.reports.page import Anchors, Section, Tile, cards, document, gallery, listing, name, path_name, table
from training.reports.tiles import jpeg

MAX_SUSPECTS = 60
MAX_GROUPS, MAX_MEMBERS = 12, 4
MAX_ODD = 8
MAX_CLASS_ROWS = 200


def data_page(checks: DataChecks, title: str) -> str:
    """The page, self-contained HTML without scripts."""
    facts = checks.to_json()
    judged = facts["out_of_fold"]
    head = [
        cards(
            [
                ("images", f"{len(checks.images):,}", f"{checks.train:,} to train on"),
                ("classes", f"{len(checks.classes):,}", ""),
                ("label suspects", f"{facts['suspects']:,}", f"{facts['confident_suspects']:,} of them confident"),
                ("near duplicates", f"{facts['duplicates']:,}", f"in {counted(facts['duplicate_groups'], 'group')}"),
                ("leaks", f"{facts['leaks']:,}", "validation images that are trained on"),
                ("left out", f"{len(checks.skipped):,}", "files or folders"),
                ("out-of-fold accuracy", _percent(judged["correct"], judged["judged"]), "of a logistic head"),
            ]
        ),
        *leak_lines(checks),
        *(f'<p class="warning">{escape(line)}.</p>' for line in checks.advice()),
    ]
    return document(title, head, data_sections(checks, Anchors()))


def leak_lines(checks: DataChecks, accuracies: Sequence[str] = ()) -> list[str]:
    """HTML lines: how many validation images are copies of training images, and what that does to the accuracy.

    Args:
        accuracies: of the trained network, with and without leaks; None for the check's logistic head.
    """
    if not (leaks := checks.leaks()):
        return ["<p>No validation image is a copy of a training image.</p>"]
    facts = checks.to_json()
    whole, clean = facts["validation_accuracy"], facts["validation_accuracy_without_leaks"]
    whose = "Accuracy" if accuracies else "Accuracy of a logistic head on the training images"
    with_leaks, without = accuracies or (
        f"{_percent(each['correct'], each['n'])} ({each['correct']:,}/{each['n']:,})" for each in (whole, clean)
    )
    return [
        f'<p class="warning">{counted(len(leaks), "validation image")} with a copy among the training images: the '
        f"accuracy is too high. {whose}: {escape(with_leaks)} with them, {escape(without)} without. They are listed in "
        f"{DUPLICATES_FILE}.</p>"
    ]


def data_sections(checks: DataChecks, anchors: Anchors) -> list[Section]:
    """The sections of data.html, which the report of a run has as well."""
    return [
        Section("suspects", "Label suspects", _suspects(checks, anchors)),
        Section("duplicates", "Near duplicates", _duplicates(checks, anchors)),
        Section("data", "The data", _summary(checks, anchors)),
    ]


def _tile(checks: DataChecks, at: int, *lines: str, alt: str = "") -> Tile:
    """An image with lines of HTML above its path."""
    text = "<br>".join([*lines, f'<span class="dim">{path_name(checks.path(at))}</span>'])
    return Tile(jpeg(checks.images[at]), text, alt)


def _suspects(checks: DataChecks, anchors: Anchors) -> list[str]:
    if not checks.usable:
        return [
            "<p>The activations do not separate the classes: the accuracy of a head on images that it was not fitted "
            "on is not above the share of the largest class. So nothing can be said about single labels. Use "
            "pretrained weights, or another network.</p>"
        ]
    suspects = checks.out_of_fold.suspects
    tiles = []
    for each in suspects[:MAX_SUSPECTS]:
        label, suggested = checks.classes[checks.images[each.index].label], checks.classes[each.suggested]
        tiles.append(
            _tile(
                checks,
                each.index,
                f'<span class="incorrect">{name(label)}</span> {100 * each.p_label:.1f}%',
                f"suggested <b>{name(suggested)}</b> {100 * each.p_suggested:.1f}%",
                alt=f"labelled {label}",
            )
        )
    return [
        f"<p>{counted(len(suspects), 'image')} whose label is probably incorrect, or hard to tell. The probabilities "
        "are of heads that did not see the image or a copy of it (5 folds). Confident learning (Northcutt et al. 2021) "
        f"counts {sum(e.confident for e in suspects):,} of them; for the others, another class is twice as probable as "
        f"the label. All are in {SUSPECTS_FILE}. To act on them, delete the rows whose label is correct, write the "
        "correct class into the column <code>corrected</code> or leave it empty to leave the image out, and train "
        f"with <code>--exclude {SUSPECTS_FILE}</code>.</p>",
        gallery(tiles, anchors, "suspects"),
    ]


def _duplicates(checks: DataChecks, anchors: Anchors) -> list[str]:
    several, leaks = checks.contradictions(), set(checks.leaks())
    parts = [
        f"<p>{counted(len(checks.groups), 'group')} of images that are copies of one another: identical, resized, "
        "recompressed, mirrored or slightly cropped. Groups with images of several classes, in which a label is "
        f"incorrect: {len(several):,}. Validation images with a copy that is trained on: {len(leaks):,}. All are in "
        f"{DUPLICATES_FILE}.</p>"
    ]

    def urgency(number: int) -> tuple[bool, bool]:
        group = checks.groups[number]
        return group not in several, leaks.isdisjoint(group.members)

    for number in sorted(range(len(checks.groups)), key=urgency)[:MAX_GROUPS]:
        group = checks.groups[number]
        tiles = [
            _tile(
                checks,
                at,
                f"{name(checks.classes[checks.images[at].label])}, {checks.part(at)}",
                f"{checks.facts_N[at]['width']} × {checks.facts_N[at]['height']}",
            )
            for at in group.members[:MAX_MEMBERS]
        ]
        words = [f"{len(group.members):,} images", f"similarity {group.similarity:.3f}"]
        words += ["several classes"] if group in several else []
        words += ["in training and validation"] if not leaks.isdisjoint(group.members) else []
        parts += [f"<h3>Group {number + 1:,}: {', '.join(words)}</h3>", gallery(tiles, anchors, "duplicates")]
    if len(checks.groups) > MAX_GROUPS:
        parts.append(
            f'<p class="note">{len(checks.groups) - MAX_GROUPS:,} further groups are in {DUPLICATES_FILE}.</p>'
        )
    return parts


def _summary(checks: DataChecks, anchors: Anchors) -> list[str]:
    counts_K2, facts = checks.counts(), checks.to_json()
    order = np.argsort(-counts_K2.sum(1), kind="stable")[:MAX_CLASS_ROWS]
    rows = [["class", "training", "validation"]]
    rows += [[checks.classes[at], f"{counts_K2[at, 0]:,}", f"{counts_K2[at, 1]:,}"] for at in order]
    sizes = [["", "least", "5%", "median", "95%", "most"]]
    sizes += [[what, *(f"{point:,.4g}" for point in points)] for what, points in size_table(checks.facts_N).items()]
    parts = [
        *(f'<p class="warning">{escape(line)}.</p>' for line in checks.advice()),
        "<h3>Images by class</h3>",
        table(rows),
        "<h3>Sizes</h3>",
        table(sizes),
        "<h3>Formats and colour modes</h3>",
        table([["format, mode", "images"], *([kind, f"{count:,}"] for kind, count in facts["kinds"].items())]),
        "<h3>Images that stand out</h3>",
        table([["", "images", "what to do"], *([e.name, f"{len(e.indices):,}", e.advice] for e in checks.oddities())]),
    ]
    for each in checks.oddities():
        if each.indices:
            tiles = [_tile(checks, at) for at in each.indices[:MAX_ODD]]
            heading = f"<h3>{each.name.capitalize()} images, the most extreme first</h3>"
            parts += [heading, gallery(tiles, anchors, "data")]
    parts.append("<h3>Files left out</h3>")
    if not checks.skipped:
        return [*parts, '<p class="note">None.</p>']
    files = [f"{each.path}: {each.reason}" for each in checks.skipped]
    return [*parts, listing(describe_skipped(checks.skipped)[:1]), listing(files)]


def _percent(correct: int, count: int) -> str:
    return f"{100 * correct / count:.2f}%" if count else "none"
