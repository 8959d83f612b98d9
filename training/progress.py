"""Progress of long work: bars on a terminal, a line every few seconds elsewhere. Everything goes to stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One line for the person who waits; never parsed as markup."""
    console.print(message, markup=False)


@contextmanager
def progress(title: str, unit: str = "photos") -> Iterator[Callable[[int, int], None]]:
    """A bar for work with a known end.

    Yields:
        Called with (done, total) whenever there is news, from one thread.
    """
    began = time.monotonic()
    if not console.is_terminal:
        yield _lines(title, unit, began)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, rate="")

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, rate=_rate(done, began, unit))

        yield show


def _lines(title: str, unit: str, began: float) -> Callable[[int, int], None]:
    last = began

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if console.quiet:
            return
        if now - last >= LINE_EVERY_S or (done == total and done > 0):
            last = now
            sys.stderr.write(f"{title}: {done:,} of {total:,} {unit}, {_rate(done, began, unit)}\n")

    return show


def _rate(done: int, began: float, unit: str) -> str:
    return f"{done / max(time.monotonic() - began, 1e-9):,.0f} {unit}/s"
