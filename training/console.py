"""Messages and progress on stderr: bars on a terminal, a line every few seconds elsewhere. How long stages take."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line; never parsed as markup. Terminals would break long lines inside words."""
    console.print(message, markup=False, soft_wrap=not console.is_terminal)


@contextmanager
def progress(title: str, unit: str = "images") -> Iterator[Callable[[int, int], None]]:
    """Show the progress of work with a known end.

    Yields:
        A function to call with (done, total), from one thread.
    """
    rate = _Rate(unit)
    if not console.is_terminal:
        last = time.monotonic()

        def write_line(done: int, total: int) -> None:
            nonlocal last
            words = f", {rate.after(done)}".removesuffix(", ")
            now = time.monotonic()
            if not console.quiet and (now - last >= LINE_EVERY_S or done == total > 0):
                last = now
                sys.stderr.write(f"{title}: {done:,} of {total:,} {unit}{words}\n")

        yield write_line
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
        yield lambda done, total: bars.update(task, completed=done, total=total, rate=rate.after(done))
        if not bars.tasks[0].total:  # there was nothing to do
            bars.remove_task(task)


class Stopwatch:
    """Seconds that each stage took, in order."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})
        self._running: tuple[str, float] | None = None
        """The name of the stage in progress, and when it began."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._running = name, time.monotonic()
        yield
        self.seconds, self._running = self.so_far(), None

    def so_far(self) -> dict[str, float]:
        """The seconds with those of the stage in progress."""
        if self._running is None:
            return self.seconds
        name, began = self._running
        return self.seconds | {name: round(self.seconds.get(name, 0) + time.monotonic() - began, 3)}

    def add(self, other: "Stopwatch") -> None:
        """Add what the stages took in another attempt."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = round(self.seconds.get(name, 0) + seconds, 3)


class _Rate:
    """The rate since the first report, as text; work of an earlier run does not count."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.first: tuple[int, float] | None = None

    def after(self, done: int) -> str:
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        count, seconds = done - self.first[0], now - self.first[1]
        if count <= 0 or seconds <= 0:
            return ""
        rate = count / seconds
        return f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"


def counted(count: int, noun: str) -> str:
    """A number with its noun, whose plural ends with s: "1 group", "1,000 groups"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
