"""What is asked of the statistics in; what their tables say, in one transaction, out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from serving.statistics import schema as schema

MS_PER_MINUTE = 60_000

Key = tuple[str, int]
"""Model and version."""


class WindowExpired(ValueError):
    """A window that begins, or ends, before the time since which labels are kept."""

    def __init__(self, labels_since_ms: int) -> None:
        super().__init__("labels of the window are no longer kept")
        self.labels_since_ms = labels_since_ms
        """The earliest time that windows can begin or end at, in Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Window:
    """Predictions from `start_ms` until before `end_ms`, in Unix milliseconds; None for no such bound."""

    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def first_minute(self) -> int | None:
        """The Unix minute that the window begins in."""
        return None if self.start_ms is None else self.start_ms // MS_PER_MINUTE

    @property
    def end_minute(self) -> int | None:
        """The first Unix minute that is wholly after the window."""
        return None if self.end_ms is None else -(-self.end_ms // MS_PER_MINUTE)

    def touches(self, minute: int) -> bool:
        """Whether any part of a Unix minute is in the window."""
        first, end = self.first_minute, self.end_minute
        return (first is None or first <= minute) and (end is None or minute < end)


ALL_TIME = Window()


class LabelRow(NamedTuple):
    """One label, as it is kept; class indices, and Unix milliseconds."""

    id: bytes
    model: str
    version: int
    predicted: int
    actual: int
    probability: float
    predicted_at: int
    labelled_at: int


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How often one class was true while one was predicted, with a probability in one calibration bin."""

    actual: int
    predicted: int
    calibration_bin: int
    count: int
    probability_sum: float


def select_classes(connection: Connection, model: str, version: int) -> tuple[str, ...] | None:
    """A version's class names; None if it was never registered."""
    columns = schema.versions.c
    key = (columns.model == model, columns.version == version)
    classes = connection.scalar(select(columns.classes).where(*key))
    return None if classes is None else tuple(classes)


def select_all_classes(connection: Connection) -> dict[Key, tuple[str, ...]]:
    """The class names of every version."""
    columns = schema.versions.c
    rows = connection.execute(select(columns.model, columns.version, columns.classes))
    return {(model, version): tuple(classes) for model, version, classes in rows}


def select_labels(
    connection: Connection, model: str | None, version: int | None, window: Window, at_once: int
) -> Iterator[Sequence[LabelRow]]:
    """The labels that are kept of predictions in the window, in the order of these, so many at once.

    Raises:
        WindowExpired: if the window begins, or ends, before the time that labels are kept for.
    """
    _check_kept(connection, window)
    columns = schema.labels.c
    query = select(
        columns.id,
        columns.model,
        columns.version,
        columns.predicted,
        columns.actual,
        columns.probability,
        columns.predicted_at,
        columns.labelled_at,
    ).order_by(columns.predicted_at, columns.id)
    query = query.where(*_between(columns.predicted_at, window.start_ms, window.end_ms))
    streaming = connection.execution_options(yield_per=at_once)
    for partition in streaming.execute(query.where(*_only(schema.labels, model, version))).partitions():
        yield [LabelRow(*row) for row in partition]


def select_revision(connection: Connection) -> int:
    """A number that grows whenever anything is written."""
    return int(connection.scalar(select(schema.bookkeeping.c.revision)) or 0)


def select_predictions(connection: Connection, model: str | None, version: int | None, window: Window) -> Counter[Key]:
    """How many predictions each version made in the minutes that the window touches."""
    totals, minutes = schema.predictions, schema.prediction_minutes
    if window.first_minute is not None:
        return _counted(
            connection, minutes, model, version, *_between(minutes.c.minute, window.first_minute, window.end_minute)
        )
    counts = _counted(connection, totals, model, version)
    if window.end_minute is not None:
        counts.subtract(_counted(connection, minutes, model, version, minutes.c.minute >= window.end_minute))
    return counts


def select_outcomes(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[Key, list[OutcomeCount]]:
    """What was labelled of the predictions in the window.

    Raises:
        WindowExpired: if labels that it needs are no longer kept.
    """
    _check_kept(connection, window)
    if window.start_ms is not None:
        return _outcomes(connection, _kept(window, model, version))
    totals = _outcomes(connection, _totals(model, version))
    if window.end_ms is None:
        return totals
    # of the labels before a time some may be forgotten, of those since then none is
    later = _outcomes(connection, _kept(Window(start_ms=window.end_ms), model, version))
    return {key: _difference(outcomes, later.get(key, [])) for key, outcomes in totals.items()}


def select_last_labels(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[Key, int]:
    """When each version's newest label of a prediction in the window was recorded, in Unix milliseconds."""
    if window == ALL_TIME:
        table, newest = schema.outcomes, func.max(schema.outcomes.c.last_labelled_at)
    else:
        table, newest = schema.labels, func.max(schema.labels.c.labelled_at)
    query = select(table.c.model, table.c.version, newest).group_by(table.c.model, table.c.version)
    if window != ALL_TIME:
        query = query.where(*_between(table.c.predicted_at, window.start_ms, window.end_ms))
    rows = connection.execute(query.where(*_only(table, model, version)))
    return {(model_, version_): int(newest_ms) for model_, version_, newest_ms in rows}


def _check_kept(connection: Connection, window: Window) -> None:
    bound_ms = window.start_ms if window.start_ms is not None else window.end_ms
    if bound_ms is None:
        return
    since_ms = int(connection.scalar(select(schema.bookkeeping.c.labels_since)) or 0)
    if since_ms and bound_ms < since_ms:
        raise WindowExpired(since_ms)


def _counted(
    connection: Connection, table: Table, model: str | None, version: int | None, *where: ColumnElement[bool]
) -> Counter[Key]:
    columns = table.c
    query = select(columns.model, columns.version, func.sum(columns.count)).group_by(columns.model, columns.version)
    rows = connection.execute(query.where(*where, *_only(table, model, version)))
    return Counter({(model_, version_): int(count) for model_, version_, count in rows})


def _totals(model: str | None, version: int | None) -> Select[Any]:
    table = schema.outcomes
    columns = table.c
    query = select(
        columns.model,
        columns.version,
        columns.actual,
        columns.predicted,
        columns.calibration_bin,
        columns.count,
        columns.probability_sum,
    )
    return query.where(columns.count > 0, *_only(table, model, version))


def _kept(window: Window, model: str | None, version: int | None) -> Select[Any]:
    table = schema.labels
    columns = table.c
    group = (columns.model, columns.version, columns.actual, columns.predicted, columns.calibration_bin)
    query = select(*group, func.count(), func.sum(columns.probability)).group_by(*group)
    where = _between(columns.predicted_at, window.start_ms, window.end_ms)
    return query.where(*where, *_only(table, model, version))


def _outcomes(connection: Connection, query: Select[Any]) -> dict[Key, list[OutcomeCount]]:
    outcomes: dict[Key, list[OutcomeCount]] = {}
    for model, version, actual, predicted, calibration_bin, count, probability_sum in connection.execute(query):
        outcome = OutcomeCount(actual, predicted, calibration_bin, count, probability_sum)
        outcomes.setdefault((model, version), []).append(outcome)
    return outcomes


def _difference(outcomes: Iterable[OutcomeCount], later: Iterable[OutcomeCount]) -> list[OutcomeCount]:
    taken = {(each.actual, each.predicted, each.calibration_bin): each for each in later}
    left = []
    for each in outcomes:
        other = taken.get((each.actual, each.predicted, each.calibration_bin))
        count = each.count - (other.count if other else 0)
        if count:
            probability_sum = each.probability_sum - (other.probability_sum if other else 0.0)
            left.append(OutcomeCount(each.actual, each.predicted, each.calibration_bin, count, probability_sum))
    return left


def _between(column: ColumnElement[int], start: int | None, end: int | None) -> list[ColumnElement[bool]]:
    where = [] if start is None else [column >= start]
    return where if end is None else [*where, column < end]


def _only(table: Table, model: str | None, version: int | None) -> list[ColumnElement[bool]]:
    wanted = {"model": model, "version": version}
    return [table.c[name] == value for name, value in wanted.items() if value is not None]
