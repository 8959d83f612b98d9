"""A comparison for a terminal of 80 columns."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType, group
from rich.table import Table
from rich.text import Text

from training.comparison.rows import class_rows, pair_rows, result_rows, verdict, warnings
from training.comparison.runs import ComparedRun, Pair, setting_rows

MAX_CLASSES = 10
MAX_SETTINGS = 20


@group()
def runs_view(runs: Sequence[ComparedRun], pairs: Sequence[Pair]) -> Iterator[RenderableType]:
    """The comparison, to be printed by a rich console."""
    for warning in warnings(pairs):
        yield Text(f"warning: {warning}", style="yellow")
    yield _table("Each run on its own validation images", _without(result_rows(runs), "network", "seconds"))
    yield _table(f"Against {runs[0].name}, on the same images", _without(pair_rows(pairs), "log loss, change (95%)"))
    for pair in pairs:
        yield Text(verdict(pair), style="bold")
    for pair in pairs:
        rows = class_rows(pair)
        if len(rows) > 2:
            title = f"Classes, {pair.second.name} against {pair.first.name}"
            yield _table(title if len(rows) <= MAX_CLASSES else f"{title}: the most different", rows[: MAX_CLASSES + 1])
    settings = setting_rows(runs)
    if settings:
        rows = [["setting", *(each.name for each in runs)], *settings[:MAX_SETTINGS]]
        yield _table("What differs between the runs", rows, numbers=False)
        if len(settings) > MAX_SETTINGS:
            yield Text(f"and {len(settings) - MAX_SETTINGS:,} more settings, which the page lists")
    else:
        yield Text("the runs have the same settings and data")


def _without(rows: Sequence[Sequence[str]], *names: str) -> list[list[str]]:
    kept = [at for at, name in enumerate(rows[0]) if name not in names]
    return [[row[at] for at in kept] for row in rows]


def _table(title: str, rows: Sequence[Sequence[str]], *, numbers: bool = True) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
    for at, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if numbers and at else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
