"""Labels, counts and registrations in; what is written to the statistics' tables out, by whoever holds the write lock.

One transaction writes at a time, whichever process it belongs to: so what it reads first still holds when it writes.

What waits to be written to the statistics, with the future of whoever waits for it; one transaction takes all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, Table, bindparam, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving.statistics import schema as schema
from serving.statistics.calibration import bin_of
from serving.statistics.queries import MS_PER_MINUTE, select_classes
from serving.tokens.tokens import PredictionRecord

IDS_PER_QUERY = 500

Counts = Counter[tuple[str, int, int, int]]
"""How often each (model, version, class index) was predicted in each Unix minute."""

_Cell = tuple[str, int, int, int, int]
"""Model, version, actual, predicted, calibration bin."""


@dataclass(frozen=True, slots=True)
class Label:
    """What turned out to be true of one prediction."""

    record: PredictionRecord
    actual: int
    """Index of the true class."""


class LabelExpired(ValueError):
    """A label of a prediction from before the time that labels are kept for: whether it was counted is forgotten."""

    def __init__(self, labels_since_ms: int) -> None:
        super().__init__("the prediction was made longer ago than labels are kept, so it can no longer be labelled")
        self.labels_since_ms = labels_since_ms
        """The earliest prediction that can be labelled, in Unix milliseconds."""


Previous = int | LabelExpired | None
"""What became of a label: the index of the class that was recorded before it, None, or why it was not recorded."""


def register(connection: Connection, model: str, version: int, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Write a version's class names, unless it has some; those that it then has."""
    insert = _statements(connection.dialect.name).version
    connection.execute(insert, {"model": model, "version": version, "classes": list(classes)})
    stored = select_classes(connection, model, version)
    assert stored is not None
    return stored


def check_classes(model: str, version: int, stored: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """See to it that a version was registered with these classes.

    Raises:
        ValueError: with both lists, if it was with others.
    """
    if stored != classes:
        raise ValueError(
            f"{model} version {version} was registered with the classes {_shown(stored)}, and now has "
            f"{_shown(classes)}: its labels would be counted under other names. Give the changed model a new version"
        )


def advance_revision(connection: Connection) -> int:
    """Tell other processes that something is new; the time since which labels are kept, in Unix milliseconds."""
    columns = schema.bookkeeping.c
    connection.execute(update(schema.bookkeeping).values(revision=columns.revision + 1))
    return int(connection.scalar(select(columns.labels_since)) or 0)


def upsert_labels(connection: Connection, labels: Sequence[Label], now_ms: int, since_ms: int) -> list[Previous]:
    """Write labels in their order, but for those of predictions from before `since_ms`."""
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
        statements = _statements(connection.dialect.name)
        connection.execute(statements.label, [_row(label, now_ms) for label in changed.values()])
        keys = ("model", "version", "actual", "predicted", "calibration_bin")
        rows = [
            dict(zip(keys, cell, strict=True), count=count, probability_sum=sums[cell], last_labelled_at=now_ms)
            for cell, count in counts.items()
        ]
        connection.execute(statements.outcome, rows)
    return previous


def add_predictions(connection: Connection, counts: Counts) -> None:
    """Add to how often each class was predicted, and how much in each minute."""
    by_class: Counter[tuple[str, int, int]] = Counter()
    by_minute: Counter[tuple[str, int, int]] = Counter()
    for (model, version, predicted, minute), count in counts.items():
        by_class[model, version, predicted] += count
        by_minute[model, version, minute] += count
    statements = _statements(connection.dialect.name)
    connection.execute(statements.prediction, _rows("predicted", by_class))
    connection.execute(statements.minute, _rows("minute", by_minute))


def forget_labels(connection: Connection, before_ms: int, most: int) -> int:
    """Drop labels of predictions that were made before a time, the oldest first; how many were dropped.

    From now on such predictions cannot be labelled. Totals stay as they are.
    """
    columns = schema.bookkeeping.c
    connection.execute(
        update(schema.bookkeeping).where(columns.labels_since < before_ms).values(labels_since=before_ms)
    )
    labels, minutes = schema.labels, schema.prediction_minutes
    oldest = select(labels.c.id).where(labels.c.predicted_at < before_ms).order_by(labels.c.predicted_at).limit(most)
    dropped = connection.execute(delete(labels).where(labels.c.id.in_(oldest))).rowcount
    connection.execute(delete(minutes).where(minutes.c.minute < before_ms // MS_PER_MINUTE))
    return int(dropped)


@dataclass(frozen=True)
class _Statements:
    """Inserts that do something else where the row is there already; SQLite's and PostgreSQL's are built apart."""

    version: Insert
    label: Insert
    outcome: Insert
    prediction: Insert
    minute: Insert


@cache
def _statements(dialect: str) -> _Statements:
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]

    def adding(table: Table, *sums: str, latest: str | None = None) -> Any:
        statement = insert(table)
        new = statement.excluded
        changes = {name: table.c[name] + new[name] for name in sums}
        if latest is not None:  # a clock may have jumped back
            changes[latest] = case((new[latest] > table.c[latest], new[latest]), else_=table.c[latest])
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)

    label = insert(schema.labels)
    corrected = {name: label.excluded[name] for name in ("actual", "labelled_at")}
    return _Statements(
        version=insert(schema.versions).on_conflict_do_nothing(),
        label=label.on_conflict_do_update(index_elements=["id"], set_=corrected),
        outcome=adding(schema.outcomes, "count", "probability_sum", latest="last_labelled_at"),
        prediction=adding(schema.predictions, "count"),
        minute=adding(schema.prediction_minutes, "count"),
    )


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
    return {  # as Python's own numbers: numpy's cannot be bound
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


def _rows(third: str, counts: Mapping[tuple[str, int, int], int]) -> list[dict[str, object]]:
    return [
        {"model": model, "version": version, third: key, "count": count}
        for (model, version, key), count in counts.items()
    ]


def _shown(classes: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, classes[:20]))
    return f"[{shown}]" if len(classes) <= 20 else f"[{shown}, … {len(classes)} in all]"


@dataclass(frozen=True)
class LabelBatch:
    """Labels of one caller."""

    labels: Sequence[Label]
    future: Future[list[Previous]] = field(default_factory=Future)


@dataclass(frozen=True)
class WriteTask:
    """Anything else that is done in a transaction."""

    run: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class Group:
    """What is written in one transaction."""

    label_batches: list[LabelBatch]
    tasks: list[WriteTask]
    counts: Counts
