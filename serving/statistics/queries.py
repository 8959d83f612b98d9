"""Read queries of the statistics. The filters `model` and `version` are None for all."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema

MS_PER_MINUTE = 60_000


class WindowExpired(ValueError):
    """A window that begins or ends before the time since which labels are kept."""

    def __init__(self, labels_since_ms: int) -> None:
        super().__init__("labels of the window have been deleted")
        self.labels_since_ms = labels_since_ms
        """The earliest time at which windows can begin or end, in Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Window:
    """Predictions from `start_ms` until before `end_ms`, in Unix milliseconds; None for no such limit."""

    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def first_minute(self) -> int | None:
        """The Unix minute in which the window begins."""
        return None if self.start_ms is None else self.start_ms // MS_PER_MINUTE

    @property
    def end_minute(self) -> int | None:
        """The first Unix minute that lies entirely after the window."""
        return None if self.end_ms is None else -(-self.end_ms // MS_PER_MINUTE)

    def overlaps(self, minute: int) -> bool:
        """Whether any part of a Unix minute is in the window."""
        first, end = self.first_minute, self.end_minute
        return (first is None or first <= minute) and (end is None or minute < end)


ALL_TIME = Window()


class LabelRow(NamedTuple):
    """One stored label: class indices, and times in Unix milliseconds."""

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
    """How many labels have one actual class, one predicted class and one calibration bin."""

    actual: int
    predicted: int
    calibration_bin: int
    count: int
    probability_sum: float


def select_classes(connection: Connection, version: ModelVersion) -> tuple[str, ...] | None:
    """A version's class names; None if it was never registered."""
    columns = schema.versions.c
    key = (columns.model == version.name, columns.version == version.version)
    classes = connection.scalar(select(columns.classes).where(*key))
    return None if classes is None else tuple(classes)


def select_all_classes(connection: Connection) -> dict[ModelVersion, tuple[str, ...]]:
    """The class names of every version."""
    columns = schema.versions.c
    rows = connection.execute(select(columns.model, columns.version, columns.classes))
    return {ModelVersion(model, version): tuple(classes) for model, version, classes in rows}


def select_labels(
    connection: Connection, model: str | None, version: int | None, window: Window, chunk_rows: int
) -> Iterator[Sequence[LabelRow]]:
    """The stored labels of predictions in the window, in the order of the predictions, in chunks.

    Raises:
        WindowExpired: if labels of the window have been deleted.
    """
    _check_kept(connection, window)
    columns = schema.labels.c
    query = (
        select(*(columns[name] for name in LabelRow._fields))
        .where(*_between(columns.predicted_at, window.start_ms, window.end_ms), *_only(schema.labels, model, version))
        .order_by(columns.predicted_at, columns.id)
    )
    for partition in connection.execution_options(yield_per=chunk_rows).execute(query).partitions():
        yield [LabelRow(*row) for row in partition]


def select_revision(connection: Connection) -> int:
    """A number that grows with every write."""
    return int(connection.scalar(select(schema.bookkeeping.c.revision)) or 0)


def select_predictions(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> Counter[ModelVersion]:
    """How many predictions each version made in the minutes that overlap the window."""
    totals, minutes = schema.predictions, schema.prediction_minutes
    if window.first_minute is not None:
        between = _between(minutes.c.minute, window.first_minute, window.end_minute)
        return _sum_counts(connection, minutes, model, version, *between)
    counts = _sum_counts(connection, totals, model, version)
    if window.end_minute is not None:
        counts.subtract(_sum_counts(connection, minutes, model, version, minutes.c.minute >= window.end_minute))
    return counts


def select_outcomes(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[ModelVersion, list[OutcomeCount]]:
    """The outcomes of labelled predictions in the window.

    Raises:
        WindowExpired: if labels of the window have been deleted.
    """
    _check_kept(connection, window)
    if window.start_ms is not None:
        return _read_outcomes(connection, _count_labels(window, model, version))
    totals = _read_outcomes(connection, _read_totals(model, version))
    if window.end_ms is None:
        return totals
    # labels before the window's end may have been deleted, later ones are all there
    later = _read_outcomes(connection, _count_labels(Window(start_ms=window.end_ms), model, version))
    return {key: _subtract(outcomes, later.get(key, [])) for key, outcomes in totals.items()}


def select_last_labels(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[ModelVersion, int]:
    """When each version's newest label of a prediction in the window was recorded, in Unix milliseconds."""
    if window == ALL_TIME:
        table, time, where = schema.outcomes, schema.outcomes.c.last_labelled_at, []
    else:
        table, time = schema.labels, schema.labels.c.labelled_at
        where = _between(table.c.predicted_at, window.start_ms, window.end_ms)
    query = select(table.c.model, table.c.version, func.max(time)).group_by(table.c.model, table.c.version)
    rows = connection.execute(query.where(*where, *_only(table, model, version)))
    return {ModelVersion(name, number): int(newest_ms) for name, number, newest_ms in rows}


def _check_kept(connection: Connection, window: Window) -> None:
    bound_ms = window.start_ms if window.start_ms is not None else window.end_ms
    if bound_ms is None:
        return
    since_ms = int(connection.scalar(select(schema.bookkeeping.c.labels_since)) or 0)
    if since_ms and bound_ms < since_ms:
        raise WindowExpired(since_ms)


def _sum_counts(
    connection: Connection, table: Table, model: str | None, version: int | None, *where: ColumnElement[bool]
) -> Counter[ModelVersion]:
    columns = table.c
    query = select(columns.model, columns.version, func.sum(columns.count)).group_by(columns.model, columns.version)
    rows = connection.execute(query.where(*where, *_only(table, model, version)))
    return Counter({ModelVersion(model_, version_): int(count) for model_, version_, count in rows})


def _read_totals(model: str | None, version: int | None) -> Select[Any]:
    table = schema.outcomes
    query = select(*_outcome_columns(table), table.c.count, table.c.probability_sum)
    return query.where(table.c.count > 0, *_only(table, model, version))


def _count_labels(window: Window, model: str | None, version: int | None) -> Select[Any]:
    table = schema.labels
    group = _outcome_columns(table)
    query = select(*group, func.count(), func.sum(table.c.probability)).group_by(*group)
    where = _between(table.c.predicted_at, window.start_ms, window.end_ms)
    return query.where(*where, *_only(table, model, version))


def _outcome_columns(table: Table) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in ("model", "version", "actual", "predicted", "calibration_bin")]


def _read_outcomes(connection: Connection, query: Select[Any]) -> dict[ModelVersion, list[OutcomeCount]]:
    outcomes: dict[ModelVersion, list[OutcomeCount]] = {}
    for model, version, *values in connection.execute(query):
        outcomes.setdefault(ModelVersion(model, version), []).append(OutcomeCount(*values))
    return outcomes


def _subtract(outcomes: Iterable[OutcomeCount], later: Iterable[OutcomeCount]) -> list[OutcomeCount]:
    taken = {(each.actual, each.predicted, each.calibration_bin): each for each in later}
    left = []
    for each in outcomes:
        if other := taken.get((each.actual, each.predicted, each.calibration_bin)):
            count, probability_sum = each.count - other.count, each.probability_sum - other.probability_sum
            each = replace(each, count=count, probability_sum=probability_sum)
        if each.count:
            left.append(each)
    return left


def _between(column: ColumnElement[int], start: int | None, end: int | None) -> list[ColumnElement[bool]]:
    where = [] if start is None else [column >= start]
    return where if end is None else [*where, column < end]


def _only(table: Table, model: str | None, version: int | None) -> list[ColumnElement[bool]]:
    wanted = {"model": model, "version": version}
    return [table.c[name] == value for name, value in wanted.items() if value is not None]
