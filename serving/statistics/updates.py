"""Write statements of the statistics, run by the process that holds the write lock.

Only one transaction writes at a time, so what it reads first still holds when it writes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema
from serving.statistics.queries import MS_PER_MINUTE, select_classes

CLASSES_SHOWN = 20
MAX_WAITING_COUNTS = 10_000
"""Most prediction counts that wait in memory while the database fails; more are merged into longer spans."""

Counts = Counter[tuple[ModelVersion, int, int]]
"""How often each (version, class index) was predicted in each Unix minute."""

Names = tuple[str, ...]
Rows = Sequence[Mapping[str, object]]


def register(connection: Connection, version: ModelVersion, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Write a version's class names unless it has some; return those that it then has."""
    row = {"model": version.name, "version": version.version, "classes": list(classes)}
    upsert(connection, schema.versions, [row])
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


def add_predictions(connection: Connection, counts: Counts) -> None:
    """Add to the prediction counts by class and by minute."""
    for table, column, place in ((schema.predictions, "predicted", 0), (schema.prediction_minutes, "minute", 1)):
        sums: Counter[tuple[ModelVersion, int]] = Counter()
        for (version, *indices), count in counts.items():
            sums[version, indices[place]] += count
        rows = [
            {"model": version.name, "version": version.version, column: value, "count": count}
            for (version, value), count in sums.items()
        ]
        upsert(connection, table, rows, add=("count",))


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


def upsert(
    connection: Connection, table: Table, rows: Rows, *, replace: Names = (), add: Names = (), latest: Names = ()
) -> None:
    """Insert rows; where a row with the same primary key is there, change these columns of it instead."""
    if rows:
        connection.execute(_make_upsert(connection.dialect.name, table, replace, add, latest), rows)


@cache
def _make_upsert(dialect: str, table: Table, replace: Names, add: Names, latest: Names) -> Any:
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    old, new = table.c, statement.excluded
    changes: dict[str, Any] = {name: new[name] for name in replace}
    changes |= {name: old[name] + new[name] for name in add}
    for name in latest:  # the clock may have jumped back
        changes[name] = case((new[name] > old[name], new[name]), else_=old[name])
    if not changes:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)


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
