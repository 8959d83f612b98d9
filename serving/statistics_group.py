"""What waits to be written to the statistics, with the future of whoever waits for it; one transaction takes all."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from serving.statistics_updates import Counts, Label, Previous


@dataclass(frozen=True)
class Labelling:
    """Labels of one caller."""

    labels: Sequence[Label]
    future: Future[list[Previous]] = field(default_factory=Future)


@dataclass(frozen=True)
class Errand:
    """Anything else that is done in a transaction."""

    run: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class Group:
    """What is written in one transaction."""

    labellings: list[Labelling]
    errands: list[Errand]
    counts: Counts
