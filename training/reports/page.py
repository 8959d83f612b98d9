"""The look of every page that training and export write: self-contained HTML without scripts or network access.

An image in a gallery is in the file once: a click on it enlarges it (CSS `:target`), a click anywhere closes it.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from serving.statistics.class_report import ClassReport

MAX_LISTED = 20
LONG_VALUE = 10
"""Characters of a card's value from which it is set smaller: names of networks."""
STACKED_COLUMNS = 6
"""On a narrow screen, the rows of a table with so many columns are blocks with a line for each cell."""
MAX_ROWS = 30
"""Longer tables are folded, and unfold in columns."""
_NUMBERS = re.compile(r"([\d\s.,:%/()+-]|\b(to|nan|inf|not recorded)\b|(?<=\d)e(?=[+-]))*")
"""A cell of numbers, as in "98.3% (97.1 to 99.0)"; also one that is empty."""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1d232e;--dim:#5d6675;--line:#d9dde4;--soft:#f3f5f8;--card:#fff;
--blue:#1f5fa8;--blue2:#5b93cf;--blue3:#9dc0e6;--orange:#b8501a;--grey:#7d8592;--bad:#b3261e;--good:#1a7336}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--ink:#e4e8ef;--dim:#9aa4b3;--line:#323945;--soft:#1d222a;
--card:#1a1e25;--blue:#7db4f0;--blue2:#5587bd;--blue3:#3b5c80;--orange:#f0975a;--grey:#8a93a1;--bad:#ff8a80;
--good:#7bd694}}
*{box-sizing:border-box}html{scroll-behavior:smooth}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;margin:0;background:var(--bg);color:var(--ink)}
.page{max-width:82rem;margin:0 auto;padding:1.2rem}
header h1{font-size:1.7rem;line-height:1.25;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.6rem 0 .7rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
h3{font-size:1.02rem;margin:1.4rem 0 .5rem;overflow-wrap:anywhere}
a{color:var(--blue)}p{max-width:50rem;overflow-wrap:anywhere}.dim,.note{color:var(--dim)}.note{font-size:.9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.7rem;margin:1rem 0;padding:0}
.cards div{background:var(--soft);border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem}
.cards dt{color:var(--dim);font-size:.85rem}
.cards dd{margin:0;overflow-wrap:anywhere;
font-size:1.5rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.3}
.cards dd.long{font-size:1.05rem;line-height:1.5}
.cards dd+dd{font-size:.82rem;font-weight:400;color:var(--dim)}
nav{background:var(--soft);border-radius:10px;padding:.5rem .9rem;font-size:.92rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:0;padding:0}
.warning{border-left:4px solid var(--bad);background:var(--soft);padding:.45rem .8rem;border-radius:0 8px 8px 0}
.incorrect{color:var(--bad)}.correct{color:var(--good)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
.plots figure,.plot{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem}
.plots svg,.plots img{width:100%;height:auto;display:block;max-height:34rem}.plots svg text{fill:var(--ink)}
.plots figcaption,.plot figcaption{font-weight:600;font-size:.95rem;margin-bottom:.4rem}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.6rem,1fr));gap:.7rem;list-style:none;padding:0;
margin:.4rem 0}
.tile{background:var(--soft);border:1px solid var(--line);border-radius:8px;overflow:hidden;position:relative}
.tile img{width:100%;aspect-ratio:1;object-fit:cover;display:block}
.tile .text{font-size:.8rem;line-height:1.4;padding:.35rem .5rem;overflow-wrap:anywhere}
.tile .close{display:none}
.tile:target{position:fixed;inset:0;z-index:9;border:0;border-radius:0;background:var(--bg);display:flex;
flex-direction:column;align-items:center;justify-content:center;gap:.6rem;padding:1rem}
.tile:target img{width:auto;max-width:96vw;height:76vh;aspect-ratio:auto;object-fit:contain}
.tile:target .text{font-size:1rem;text-align:center}.tile:target .close{display:block;position:absolute;inset:0}
.table{overflow-x:auto;margin:.5rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
td,th{padding:.32rem .75rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right}.long .table{columns:26rem}.long tr{break-inside:avoid}
.files td,.files th{padding:.32rem .45rem}.files .n{white-space:nowrap}.files td:nth-last-child(2){min-width:9rem}
.facts td{overflow-wrap:anywhere}
td{overflow-wrap:break-word}
details{margin:.6rem 0}summary{cursor:pointer;font-weight:600;overflow-wrap:anywhere}li{overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,monospace;font-size:.88rem}
pre{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:.7rem;white-space:pre-wrap;
overflow-wrap:anywhere}
@media(max-width:40rem){.page{padding:.7rem}td,th{padding:.25rem .4rem;font-size:.82rem}
.images{grid-template-columns:repeat(auto-fill,minmax(6.6rem,1fr));gap:.45rem}.cards dd{font-size:1.2rem}
.cards{grid-template-columns:repeat(auto-fit,minmax(8rem,1fr))}
.stack thead{display:none}.stack,.stack tbody,.stack tr,.stack td{display:block}.stack tr{padding:.3rem 0;
border-bottom:1px solid var(--line)}.stack td,.files .stack td{border:0;padding:.1rem 0;display:flex;gap:.6rem;
justify-content:space-between;text-align:right;white-space:normal;min-width:0}.stack td:empty{display:none}
.stack td::before{content:attr(data-label);color:var(--dim);font-weight:600;text-align:left;flex:none;max-width:45%}}
@media print{.tile:target{position:relative}nav{display:none}}
"""


@dataclass(frozen=True)
class Section:
    """A part of a page that the table of contents links to."""

    anchor: str
    title: str
    body: list[str]
    """HTML."""


@dataclass(frozen=True)
class Tile:
    """An image of a gallery with a few words."""

    jpeg: bytes
    text: str
    """HTML."""
    alt: str = ""


@dataclass
class Anchors:
    """Gives every enlargeable image of a page an anchor of its own."""

    count: int = 0

    def next(self) -> str:
        self.count += 1
        return f"image-{self.count}"


def document(title: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """A page: header, table of contents, sections.

    Args:
        head: HTML below the title.
    """
    contents = "".join(f'<li><a href="#{each.anchor}">{escape(each.title)}</a></li>' for each in sections)
    body = "\n".join(
        f'<section id="{each.anchor}"><h2>{escape(each.title)}</h2>\n' + "\n".join(each.body) + "</section>"
        for each in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body><div class="page">\n'
        f"<header><h1>{escape(title)}</h1>\n" + "\n".join(head) + "</header>\n"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n{body}\n</main></div></body></html>\n'
    )


def cards(figures: Sequence[tuple[str, str, str]]) -> str:
    """The figures that matter most: (name, value, note), as text."""
    long = ' class="long"'
    parts = (
        f"<div><dt>{escape(name)}</dt><dd{long if len(value) > LONG_VALUE else ''}>{breakable(value)}</dd>"
        f"{f'<dd>{escape(note)}</dd>' if note else ''}</div>"
        for name, value, note in figures
    )
    return f'<dl class="cards">{"".join(parts)}</dl>'


def gallery(tiles: Sequence[Tile], anchors: Anchors, back: str) -> str:
    """Images side by side, each of which can be enlarged.

    Args:
        back: the anchor to return to when an enlarged image is closed.
    """
    parts = []
    for tile in tiles:
        anchor = anchors.next()
        parts.append(
            f'<li class="tile" id="{anchor}"><a href="#{anchor}"><img loading="lazy" '
            f'alt="{escape(tile.alt or "enlarge")}" '
            f'src="{data_url(tile.jpeg, "jpeg")}"></a><div class="text">{tile.text}</div>'
            f'<a class="close" href="#{back}" aria-label="Close"></a></li>'
        )
    return '<ul class="images">' + "".join(parts) + "</ul>" if parts else '<p class="note">None.</p>'


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, the header first. Columns of numbers after the first are aligned to the right."""
    stacked = len(rows[0]) >= STACKED_COLUMNS
    numbers = [at > 0 and all(map(_NUMBERS.fullmatch, column[1:])) for at, column in enumerate(zip(*rows, strict=True))]
    labels = [f' data-label="{escape(name)}"' if stacked else "" for name in rows[0]]

    def row(cells: Sequence[str], tag: str) -> str:
        whole = ""
        for cell, label, number in zip(cells, labels, numbers, strict=True):
            kind = ' class="n"' if number else ""
            whole += f"<{tag}{kind}{label if tag == 'td' else ''}>{escape(cell)}</{tag}>"
        return f"<tr>{whole}</tr>"

    body = "".join(row(each, "td") for each in rows[1:])
    kind = ' class="stack"' if stacked else ""
    whole = f'<div class="table"><table{kind}><thead>{row(rows[0], "th")}</thead><tbody>{body}</tbody></table></div>'
    if len(rows) - 1 <= MAX_ROWS:
        return whole
    return f'<details class="long"><summary>{len(rows) - 1:,} rows</summary>{whole}</details>'


def class_rows(report: ClassReport) -> list[list[str]]:
    """The rows of a table of precision, recall, F1 and support: the averages, as there may be many classes, first."""
    rows = [["class", "precision", "recall", "F1", "support"]]
    for scores in (*report.averages, *report.classes):
        three = (scores.precision, scores.recall, scores.f1)
        rows.append([scores.name, *(f"{score:.4f}" for score in three), f"{scores.support:,}"])
    return rows


def facts_table(facts: Mapping[str, str]) -> str:
    """Names and values, as text."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f'<div class="table facts"><table><tbody>{rows}</tbody></table></div>'


def listing(lines: Sequence[str], most: int = MAX_LISTED) -> str:
    """A list of lines of text, the first of them."""
    more = [f"and {len(lines) - most:,} more"] if len(lines) > most else []
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in [*lines[:most], *more]) + "</ul>"


def name(text: str) -> str:
    """A name in a sentence, isolated so that right-to-left text does not reorder the numbers after it."""
    return f"<bdi>{escape(text)}</bdi>"


def path_name(path: str) -> str:
    """A path that breaks into lines after its slashes."""
    return f"<bdi>{'/<wbr>'.join(map(escape, path.split('/')))}</bdi>"


def breakable(text: str) -> str:
    """Text whose words break into lines after underscores, as those of the names of networks."""
    return escape(text).replace("_", "_<wbr>")


def data_url(content: bytes, kind: str) -> str:
    """An image as a URL that needs no request."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
