"""Write statements of the statistics, run by the process that holds the write lock.

Only one transaction writes at a time, so what it reads first still holds when it writes.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, bindparam, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema
from serving.statistics.calibration import bin_of
from serving.statistics.queries import MS_PER_MINUTE, select_classes
from serving.tokens.tokens import PredictionRecord

IDS_PER_QUERY = 500
CLASSES_SHOWN = 20
MAX_WAITING_COUNTS = 10_000
"""Most prediction counts that wait in memory while the database fails; more are merged into longer spans."""

Counts = Counter[tuple[ModelVersion, int, int]]
"""How often each (version, class index) was predicted in each Unix minute."""

Names = tuple[str, ...]
_Cell = tuple[str, int, int, int, int]
"""Model, version, actual, predicted, calibration bin."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one prediction."""

    record: PredictionRecord
    actual: int
    """Index of the actual class."""


class LabelExpired(ValueError):
    """A label of a prediction from before the time since which labels are kept; it may have been counted already."""

    def __init__(self, labels_since_ms: int) -> None:
        super().__init__("the prediction was made longer ago than labels are kept, so it can no longer be labelled")
        self.labels_since_ms = labels_since_ms
        """The earliest prediction that can be labelled, in Unix milliseconds."""


Previous = int | LabelExpired | None
"""The result of recording a label: the class index recorded before, None for none, or why it was not recorded."""


def register(connection: Connection, version: ModelVersion, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Write a version's class names unless it has some; return those that it then has."""
    row = {"model": version.name, "version": version.version, "classes": list(classes)}
    connection.execute(_upsert(connection.dialect.name, schema.versions), row)
    stored = select_classes(connection, version)
    assert stored is not None
    return stored


def check_classes(version: ModelVersion, stored: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Check that a version was registered with these classes.

    Raises:
        ValueError: if it was registered with others; the message has both lists.
    """
    if stored != classes:
        raise ValueError(
            f"{version} was registered with the classes {_shown(stored)}, and now has "
            f"{_shown(classes)}: its labels would be counted under other names. Give the changed model a new version"
        )


def advance_revision(connection: Connection) -> int:
    """Signal a change to other processes; return the time since which labels are kept, in Unix milliseconds."""
    columns = schema.bookkeeping.c
    connection.execute(update(schema.bookkeeping).values(revision=columns.revision + 1))
    return int(connection.scalar(select(columns.labels_since)) or 0)


def upsert_labels(connection: Connection, labels: Sequence[Label], now_ms: int, since_ms: int) -> list[Previous]:
    """Write labels in their order, except those of predictions from before `since_ms`; return the earlier labels."""
    actual_of = _recorded(connection, [label.record.id for label in labels])
    previous: list[Previous] = []
    changed: dict[bytes, Label] = {}
    counts: defaultdict[_Cell, int] = defaultdict(int)
    sums: defaultdict[_Cell, float] = defaultdict(float)
    for label in labels:
        record = label.record
        if record.time_ms < since_ms:
            previous.append(LabelExpired(since_ms))
            continue
        before = actual_of.get(record.id)
        previous.append(before)
        if before == label.actual:
            continue
        actual_of[record.id] = label.actual
        changed[record.id] = label
        for actual, step in ((before, -1), (label.actual, 1)):
            if actual is not None:
                cell = (record.model, record.version, int(actual), int(record.predicted), bin_of(record.probability))
                counts[cell] += step
                sums[cell] += step * float(record.probability)
    if changed:
        dialect = connection.dialect.name
        upsert = _upsert(dialect, schema.labels, replace=("actual", "labelled_at"))
        connection.execute(upsert, [_row(label, now_ms) for label in changed.values()])
        keys = ("model", "version", "actual", "predicted", "calibration_bin")
        rows = [
            dict(zip(keys, cell, strict=True), count=count, probability_sum=sums[cell], last_labelled_at=now_ms)
            for cell, count in counts.items()
        ]
        add, latest = ("count", "probability_sum"), ("last_labelled_at",)
        connection.execute(_upsert(dialect, schema.outcomes, add=add, latest=latest), rows)
    return previous


def add_predictions(connection: Connection, counts: Counts) -> None:
    """Add to the prediction counts by class and by minute."""
    dialect = connection.dialect.name
    for table, column, place in ((schema.predictions, "predicted", 0), (schema.prediction_minutes, "minute", 1)):
        sums: Counter[tuple[ModelVersion, int]] = Counter()
        for (version, *indices), count in counts.items():
            sums[version, indices[place]] += count
        rows = [
            {"model": version.name, "version": version.version, column: value, "count": count}
            for (version, value), count in sums.items()
        ]
        connection.execute(_upsert(dialect, table, add=("count",)), rows)


def delete_labels(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete labels of predictions from before a time, the oldest first; return how many were deleted.

    From now on such predictions cannot be labelled. Totals stay as they are.
    """
    columns = schema.bookkeeping.c
    connection.execute(
        update(schema.bookkeeping).where(columns.labels_since < before_ms).values(labels_since=before_ms)
    )
    labels, minutes = schema.labels, schema.prediction_minutes
    oldest = select(labels.c.id).where(labels.c.predicted_at < before_ms).order_by(labels.c.predicted_at).limit(limit)
    deleted = connection.execute(delete(labels).where(labels.c.id.in_(oldest))).rowcount
    connection.execute(delete(minutes).where(minutes.c.minute < before_ms // MS_PER_MINUTE))
    return int(deleted)


@cache
def _upsert(dialect: str, table: Table, *, replace: Names = (), add: Names = (), latest: Names = ()) -> Any:
    """An insert that changes these columns of the row with the same primary key if there is one."""
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    old, new = table.c, statement.excluded
    changes: dict[str, Any] = {name: new[name] for name in replace}
    changes |= {name: old[name] + new[name] for name in add}
    for name in latest:  # the clock may have jumped back
        changes[name] = case((new[name] > old[name], new[name]), else_=old[name])
    if not changes:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)


_select_actual = select(schema.labels.c.id, schema.labels.c.actual).where(
    schema.labels.c.id.in_(bindparam("ids", expanding=True))
)


def _recorded(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, int]:
    actual_of: dict[bytes, int] = {}
    for start in range(0, len(ids), IDS_PER_QUERY):  # databases limit the parameters of one query
        rows = connection.execute(_select_actual, {"ids": ids[start : start + IDS_PER_QUERY]})
        actual_of.update((id_, actual) for id_, actual in rows)
    return actual_of


def _row(label: Label, now_ms: int) -> dict[str, object]:
    record = label.record
    return {  # converted to Python's own numbers: those of numpy cannot be bound
        "id": record.id,
        "model": record.model,
        "version": record.version,
        "predicted": int(record.predicted),
        "actual": int(label.actual),
        "probability": float(record.probability),
        "calibration_bin": bin_of(record.probability),
        "predicted_at": record.time_ms,
        "labelled_at": now_ms,
    }


def _shown(classes: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, classes[:CLASSES_SHOWN]))
    return f"[{shown}]" if len(classes) <= CLASSES_SHOWN else f"[{shown}, … {len(classes)} in all]"


def coarsen(counts: Counts, limit: int = MAX_WAITING_COUNTS) -> Counts:
    """Merge minutes into spans of 2, 4, 8 … minutes until there are at most `limit` counts.

    A span's count goes to its first minute that has one. The totals by version and class do not change, so at least one
    count remains for each of these.
    """
    if len(counts) <= limit:
        return counts
    first, last = min(key[-1] for key in counts), max(key[-1] for key in counts)
    minutes = 1 if len({key[:-1] for key in counts}) <= limit else max(1, last - first)
    while len(counts) > limit and minutes <= last - first:
        minutes *= 2
        merged: Counts = Counter()
        begins: dict[tuple[ModelVersion, int, int], int] = {}
        for (version, predicted, minute), count in sorted(counts.items()):
            begin = begins.setdefault((version, predicted, (minute - first) // minutes), minute)
            merged[version, predicted, begin] += count
        counts = merged
    return counts
