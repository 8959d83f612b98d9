"""Labels and counts in, SQL out, and back: the tables of the statistics and all that is said to them.

Everything here is what SQLite and PostgreSQL have in common, upserts included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from serving.tokens import PredictionRecord

SCHEMA_VERSION = 1
IDS_PER_QUERY = 500

_METADATA = MetaData()
_schema = Table("schema_version", _METADATA, Column("version", Integer, primary_key=True, autoincrement=False))
_versions = Table(
    "versions",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("classes", JSON, nullable=False),
)
_labels = Table(
    "labels",
    _METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("predicted", Integer, nullable=False),
    Column("actual", Integer, nullable=False),
    Column("probability", Double, nullable=False),
    Column("predicted_at", BigInteger, nullable=False),  # Unix milliseconds, as labelled_at
    Column("labelled_at", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    # Holds all that the confusion matrices are counted from, in the order that they are counted in.
    Index("labels_by_outcome", "model", "version", "actual", "predicted", "labelled_at"),
)
_predictions = Table(
    "predictions",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("predicted", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

_insert_version = insert(_versions).on_conflict_do_nothing()
_insert_label = insert(_labels)
_upsert_label = _insert_label.on_conflict_do_update(
    index_elements=["id"],
    set_={"actual": _insert_label.excluded.actual, "labelled_at": _insert_label.excluded.labelled_at},
)
_insert_prediction = insert(_predictions)
_upsert_prediction = _insert_prediction.on_conflict_do_update(
    index_elements=["model", "version", "predicted"],
    set_={"count": _predictions.c.count + _insert_prediction.excluded.count},
)
_select_actual = select(_labels.c.id, _labels.c.actual).where(_labels.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class Label:
    """What turned out to be true of one prediction."""

    record: PredictionRecord
    actual: int
    """Index of the true class."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often one class was true while one was predicted."""

    actual: int
    predicted: int
    count: int
    last_label_ms: int
    """When the newest of these labels was recorded, in Unix milliseconds."""


def create_tables(connection: Connection) -> None:
    """Make the tables that are missing.

    Raises:
        ValueError: if a newer pawserve wrote them.
    """
    found = connection.scalar(select(_schema.c.version)) if inspect(connection).has_table(_schema.name) else None
    if found is None:
        _METADATA.create_all(connection)
        connection.execute(insert(_schema), {"version": SCHEMA_VERSION})
    elif found > SCHEMA_VERSION:
        raise ValueError(
            f"the statistics were written by a newer pawserve (schema {found}; this one knows {SCHEMA_VERSION}): "
            "install that one, or name another file"
        )
    else:  # changes nothing, but finds out now if the database can only be read
        connection.execute(update(_schema).values(version=SCHEMA_VERSION))


def register(connection: Connection, model: str, version: int, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Write a version's class names, unless it has some; those that it then has."""
    connection.execute(_insert_version, {"model": model, "version": version, "classes": list(classes)})
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


def select_classes(connection: Connection, model: str, version: int) -> tuple[str, ...] | None:
    """A version's class names; None if it was never registered."""
    key = (_versions.c.model == model, _versions.c.version == version)
    classes = connection.scalar(select(_versions.c.classes).where(*key))
    return None if classes is None else tuple(classes)


def upsert_labels(connection: Connection, labels: Sequence[Label], now_ms: int) -> list[int | None]:
    """Write labels in their order; for each, the index of the class that was recorded before it, or None."""
    actual_of = _recorded(connection, [label.record.id for label in labels])
    previous: list[int | None] = []
    changed: dict[bytes, Label] = {}
    for label in labels:
        before = actual_of.get(label.record.id)
        previous.append(before)
        if before != label.actual:
            actual_of[label.record.id] = label.actual
            changed[label.record.id] = label
    if changed:
        connection.execute(_upsert_label, [_row(label, now_ms) for label in changed.values()])
    return previous


def add_predictions(connection: Connection, counts: Mapping[tuple[str, int, int], int]) -> None:
    """Add to how often each (model, version, class index) was predicted."""
    # Sorted, since a database that locks rows could deadlock over two orders.
    rows = [
        {"model": model, "version": version, "predicted": predicted, "count": count}
        for (model, version, predicted), count in sorted(counts.items())
    ]
    connection.execute(_upsert_prediction, rows)


def select_predictions(connection: Connection, model: str | None, version: int | None) -> list[tuple[str, int, int]]:
    """How much was predicted: model, version, count."""
    columns = _predictions.c
    query = select(columns.model, columns.version, func.sum(columns.count)).group_by(columns.model, columns.version)
    rows = connection.execute(query.where(*_only(_predictions, model, version)))
    return [(model_, version_, int(count)) for model_, version_, count in rows]


def select_outcomes(connection: Connection, model: str | None, version: int | None) -> list[tuple[str, int, Outcome]]:
    """What was labelled: model, version, and how often with which outcome."""
    columns = _labels.c
    group = (columns.model, columns.version, columns.actual, columns.predicted)
    query = select(*group, func.count(), func.max(columns.labelled_at)).group_by(*group)
    rows = connection.execute(query.where(*_only(_labels, model, version)))
    return [(model_, version_, Outcome(*outcome)) for model_, version_, *outcome in rows]


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
        "predicted_at": record.time_ms,
        "labelled_at": now_ms,
    }


def _only(table: Table, model: str | None, version: int | None) -> list[ColumnElement[bool]]:
    wanted = {"model": model, "version": version}
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def _shown(classes: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, classes[:20]))
    return f"[{shown}]" if len(classes) <= 20 else f"[{shown}, … {len(classes)} in all]"
