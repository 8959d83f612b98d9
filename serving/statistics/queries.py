"""Read queries of the statistics. The filters `model` and `version` are None for all."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Subquery, Table, func, or_, select, union_all

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
    reference: str | None
    """The client's own name of the image."""


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

    A prediction with the result of a shadow version has two rows: that of the version that answered comes first.

    Raises:
        WindowExpired: if labels of the window have been deleted.
    """
    check_kept(connection, window)
    columns = schema.labels.c
    shadow = [columns[name] for name in ("shadow_version", "shadow_predicted", "shadow_actual", "shadow_probability")]
    query = (
        select(*(columns[name] for name in LabelRow._fields), *shadow)
        .where(*between(columns.predicted_at, window.start_ms, window.end_ms))
        .order_by(columns.predicted_at, columns.id)
    )
    if model is not None:
        query = query.where(columns.model == model)
    if version is not None:
        query = query.where(or_(columns.version == version, columns.shadow_version == version))
    for partition in connection.execution_options(yield_per=chunk_rows).execute(query).partitions():
        rows: list[LabelRow] = []
        for *values, shadow_version, predicted, actual, probability in partition:
            row = LabelRow(*values)
            if version in (None, row.version):
                rows.append(row)
            if actual is not None and version in (None, shadow_version):
                result = {"version": shadow_version, "predicted": predicted, "actual": actual}
                rows.append(row._replace(probability=probability, **result))
        yield rows


def select_revision(connection: Connection) -> int:
    """A number that grows with every write."""
    return int(connection.scalar(select(schema.bookkeeping.c.revision)) or 0)


def select_predictions(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> Counter[ModelVersion]:
    """How many predictions each version made in the minutes that overlap the window."""
    totals, minutes = schema.predictions, schema.prediction_minutes
    if window.first_minute is not None:
        inside = between(minutes.c.minute, window.first_minute, window.end_minute)
        return _sum_counts(connection, minutes, model, version, *inside)
    counts = _sum_counts(connection, totals, model, version)
    if window.end_minute is not None:
        counts.subtract(_sum_counts(connection, minutes, model, version, minutes.c.minute >= window.end_minute))
    return counts


def select_outcomes(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[ModelVersion, list[OutcomeCount]]:
    """The outcomes of labelled predictions in the window: several may be for the same cell, and some of them negative.

    Raises:
        WindowExpired: if labels of the window have been deleted.
    """
    check_kept(connection, window)
    outcomes: dict[ModelVersion, list[OutcomeCount]] = {}
    totals = _read_totals(model, version)
    for sign, query in signed_queries(window, totals, lambda part: _count_labels(part, model, version)):
        for name, number, actual, predicted, index, count, probability_sum in connection.execute(query):
            found = OutcomeCount(actual, predicted, index, sign * count, sign * probability_sum)
            outcomes.setdefault(ModelVersion(name, number), []).append(found)
    return outcomes


def select_last_labels(
    connection: Connection, model: str | None, version: int | None, window: Window
) -> dict[ModelVersion, int]:
    """When each version's newest label of a prediction in the window was recorded, in Unix milliseconds."""
    total = window == ALL_TIME
    columns: Any = schema.outcomes.c if total else _labels_of_versions(window).c
    time = columns.last_labelled_at if total else columns.labelled_at
    query = select(columns.model, columns.version, func.max(time)).group_by(columns.model, columns.version)
    rows = connection.execute(query.where(*only(columns, model, version)))
    return {ModelVersion(name, number): int(newest_ms) for name, number, newest_ms in rows}


def check_kept(connection: Connection, window: Window) -> None:
    """Check that a window does not need labels that have been deleted.

    Raises:
        WindowExpired: if it does.
    """
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
    rows = connection.execute(query.where(*where, *only(table.c, model, version)))
    return Counter({ModelVersion(model_, version_): int(count) for model_, version_, count in rows})


def _read_totals(model: str | None, version: int | None) -> Select[Any]:
    table = schema.outcomes
    query = select(*(table.c[name] for name in _OUTCOME), table.c.count, table.c.probability_sum)
    return query.where(table.c.count > 0, *only(table.c, model, version))


def _count_labels(window: Window, model: str | None, version: int | None) -> Select[Any]:
    columns = _labels_of_versions(window).c
    group = [columns[name] for name in _OUTCOME]
    query = select(*group, func.count(), func.sum(columns.probability)).group_by(*group)
    return query.where(*only(columns, model, version))


_OUTCOME = ("model", "version", "actual", "predicted", "calibration_bin")


def _labels_of_versions(window: Window) -> Subquery:
    """A row for each label and each version that classified its image: the one that answered, and a shadow."""
    columns = schema.labels.c
    where = between(columns.predicted_at, window.start_ms, window.end_ms)
    common = (columns.labelled_at, columns.model)
    shadow = [columns[f"shadow_{name}"].label(name) for name in ("version", "actual", "predicted", "calibration_bin")]
    return union_all(
        select(*common, *(columns[name] for name in _OUTCOME[1:]), columns.probability).where(*where),
        select(*common, *shadow, columns.shadow_probability).where(*where, columns.shadow_actual.is_not(None)),
    ).subquery()


def signed_queries(
    window: Window, totals: Select[Any], count_labels: Callable[[Window], Select[Any]]
) -> list[tuple[int, Select[Any]]]:
    """Queries whose counts, each times 1 or -1, sum to those of the labels in a window."""
    if window.start_ms is not None:
        return [(1, count_labels(window))]
    if window.end_ms is None:
        return [(1, totals)]
    # labels before the window's end may have been deleted, later ones are all there
    return [(1, totals), (-1, count_labels(Window(start_ms=window.end_ms)))]


def between(column: ColumnElement[int], start: int | None, end: int | None) -> list[ColumnElement[bool]]:
    """Conditions for a column to be at least `start` and less than `end`; None for no such limit."""
    where = [] if start is None else [column >= start]
    return where if end is None else [*where, column < end]


def only(columns: Any, model: str | None, version: int | None) -> list[ColumnElement[bool]]:
    """Conditions for the columns `model` and `version`; None for any."""
    wanted = {"model": model, "version": version}
    return [columns[name] == value for name, value in wanted.items() if value is not None]
