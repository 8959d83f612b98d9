"""Labels and results of shadow versions: what they are, and the statements that write them.

Each label counts once for the version that answered and, if a shadow version classified the same image, once for that
and once for the pair. The label and the shadow's result may come in any order. Only one transaction writes at a time,
so what it reads first still holds when it writes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, select, update

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema
from serving.statistics.calibration import bin_of
from serving.statistics.updates import upsert
from serving.tokens.tokens import PredictionRecord

IDS_PER_QUERY = 500
_SHADOW_COLUMNS = (
    "shadow_version",
    "shadow_predicted",
    "shadow_probability",
    "shadow_calibration_bin",
    "shadow_actual",
)

ClassesOf = Callable[[ModelVersion], tuple[str, ...] | None]
"""The class names of a version; None if it was never registered."""


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """What a shadow version predicted for the image of a prediction."""

    version: int
    """Number of the shadow version; its model is the prediction's."""
    predicted: int
    """Index of the predicted class among the shadow version's."""
    probability: float
    """Calibrated probability of that class, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one prediction."""

    record: PredictionRecord
    actual: int
    """Index of the actual class."""
    shadow: ShadowResult | None = None
    """What a shadow version predicted for the same image; ignored if the prediction has such a result already."""


class LabelExpired(ValueError):
    """A label of a prediction from before the time since which labels are kept; it may have been counted already."""

    def __init__(self, labels_since_ms: int) -> None:
        super().__init__("the prediction was made longer ago than labels are kept, so it can no longer be labelled")
        self.labels_since_ms = labels_since_ms
        """The earliest prediction that can be labelled, in Unix milliseconds."""


Previous = int | LabelExpired | None
"""The result of recording a label: the class index recorded before, None for none, or why it was not recorded."""


class _Stored(NamedTuple):
    """A row of `labels`."""

    model: str
    version: int
    predicted: int
    actual: int
    labelled_at: int
    shadow: ShadowResult | None


def upsert_labels(
    connection: Connection, labels: Sequence[Label], now_ms: int, since_ms: int, classes_of: ClassesOf
) -> list[Previous]:
    """Write labels in their order, except those of predictions from before `since_ms`; return the earlier labels."""
    stored = _select_stored(connection, [label.record.id for label in labels])
    changed: dict[bytes, PredictionRecord] = {}
    previous: list[Previous] = []
    totals = _Totals(classes_of)
    for label in labels:
        record = label.record
        if record.time_ms < since_ms:
            previous.append(LabelExpired(since_ms))
            continue
        before = stored.get(record.id)
        previous.append(before.actual if before else None)
        shadow = (before and before.shadow) or label.shadow
        if before and before.actual == label.actual and before.shadow == shadow:
            continue
        labelled_at = before.labelled_at if before and before.actual == label.actual else now_ms
        after = _Stored(record.model, record.version, record.predicted, label.actual, labelled_at, shadow)
        stored[record.id], changed[record.id] = after, record
        totals.move(before, after, record.probability)
    rows = [_row(record, stored[id_], totals) for id_, record in changed.items()]
    for with_shadow, columns in ((False, ()), (True, _SHADOW_COLUMNS)):  # most have none, and NULLs take a fifth longer
        some = [row for row in rows if ("shadow_version" in row) == with_shadow]
        upsert(connection, schema.labels, some, replace=("actual", "labelled_at", *columns))
    totals.write(connection)
    return previous


def attach_shadows(connection: Connection, results: Sequence[tuple[bytes, ShadowResult]], classes_of: ClassesOf) -> int:
    """Count results of shadow versions for predictions that have labels; return how many were counted.

    Left out are those of predictions without a label or with an earlier result, and results that cannot be: of an
    unregistered version, of the version that answered itself, or of a class that the version does not have.
    """
    stored = _select_stored(connection, [id_ for id_, _ in results])
    totals = _Totals(classes_of)
    rows = []
    for id_, result in results:
        before = stored.get(id_)
        if before is None or before.shadow or result.version == before.version:
            continue
        classes = classes_of(ModelVersion(before.model, result.version))
        if classes is None or not 0 <= result.predicted < len(classes):
            continue
        after = before._replace(shadow=result)
        stored[id_] = after
        totals.move(before, after, 0.0)  # the answering version's count does not move
        rows.append({"labels_id": id_, **_shadow_columns(after, totals)})
    if rows:
        where = schema.labels.c.id == bindparam("labels_id")
        connection.execute(update(schema.labels).where(where), rows)
    totals.write(connection)
    return len(rows)


class _Totals:
    """Changes of the totals, gathered over one transaction."""

    def __init__(self, classes_of: ClassesOf) -> None:
        self._classes_of = classes_of
        self._shadow_indices: dict[tuple[str, int, int], Sequence[int | None]] = {}
        self._outcomes: dict[tuple[object, ...], dict[str, Any]] = {}
        """Changes of `outcomes` by primary key."""
        self._pairs: Counter[tuple[object, ...]] = Counter()
        """Changes of the counts of `paired_outcomes` by primary key."""

    def move(self, before: _Stored | None, after: _Stored, probability: float) -> None:
        """Count `after` instead of `before`: `probability` is that of the version that answered."""
        if before is None or before.actual != after.actual:
            if before:
                self._add(before, before.version, before.actual, before.predicted, probability, -1)
            self._add(after, after.version, after.actual, after.predicted, probability, 1)
        elif before.shadow == after.shadow:
            return
        if before and before.shadow:
            self._add_pair(before, before.shadow, -1)
        if after.shadow:
            self._add_pair(after, after.shadow, 1)

    def shadow_actual(self, row: _Stored, shadow: ShadowResult) -> int | None:
        """The label's index among the shadow version's classes; None if it is none of them."""
        key = row.model, row.version, shadow.version
        if key not in self._shadow_indices:
            classes = self._classes_of(ModelVersion(row.model, row.version))
            shadow_classes = self._classes_of(ModelVersion(row.model, shadow.version))
            assert classes is not None
            assert shadow_classes is not None
            index_of = {name: index for index, name in enumerate(shadow_classes)}
            self._shadow_indices[key] = [index_of.get(name) for name in classes]
        return self._shadow_indices[key][row.actual]

    def write(self, connection: Connection) -> None:
        """Add the changes to the tables of totals."""
        outcomes = [_keyed(schema.outcomes, cell) | change for cell, change in self._outcomes.items()]
        add, latest = ("count", "probability_sum"), ("last_labelled_at",)
        upsert(connection, schema.outcomes, outcomes, add=add, latest=latest)
        pairs = [_keyed(schema.paired_outcomes, cell) | {"count": count} for cell, count in self._pairs.items()]
        upsert(connection, schema.paired_outcomes, pairs, add=("count",))

    def _add(self, row: _Stored, version: int, actual: int, predicted: int, probability: float, step: int) -> None:
        cell = (row.model, version, actual, predicted, bin_of(probability))
        change = self._outcomes.setdefault(cell, {"count": 0, "probability_sum": 0.0, "last_labelled_at": 0})
        change["count"] += step
        change["probability_sum"] += step * probability
        change["last_labelled_at"] = max(change["last_labelled_at"], row.labelled_at)

    def _add_pair(self, row: _Stored, shadow: ShadowResult, step: int) -> None:
        actual = self.shadow_actual(row, shadow)
        shadow_correct = schema.NO_SUCH_CLASS if actual is None else int(actual == shadow.predicted)
        correct = int(row.actual == row.predicted)
        self._pairs[row.model, row.version, shadow.version, row.actual, correct, shadow_correct] += step
        if actual is not None:
            self._add(row, shadow.version, actual, shadow.predicted, shadow.probability, step)


def _keyed(table: Table, values: tuple[object, ...]) -> dict[str, Any]:
    """The columns of a table's primary key with these values."""
    return dict(zip(table.primary_key.columns.keys(), values, strict=True))


_select_rows = select(
    *(schema.labels.c[name] for name in ("id", "model", "version", "predicted", "actual", "labelled_at")),
    *(schema.labels.c[name] for name in _SHADOW_COLUMNS[:3]),
).where(schema.labels.c.id.in_(bindparam("ids", expanding=True)))


def _select_stored(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, _Stored]:
    stored: dict[bytes, _Stored] = {}
    for start in range(0, len(ids), IDS_PER_QUERY):  # databases limit the parameters of one query
        for row in connection.execute(_select_rows, {"ids": ids[start : start + IDS_PER_QUERY]}):
            shadow = None if row.shadow_version is None else ShadowResult(*row[-3:])
            stored[row.id] = _Stored(row.model, row.version, row.predicted, row.actual, row.labelled_at, shadow)
    return stored


def _row(record: PredictionRecord, row: _Stored, totals: _Totals) -> dict[str, object]:
    return {
        "id": record.id,
        "model": row.model,
        "version": row.version,
        "predicted": row.predicted,
        "actual": row.actual,
        "probability": record.probability,
        "calibration_bin": bin_of(record.probability),
        "predicted_at": record.time_ms,
        "labelled_at": row.labelled_at,
        "reference": record.reference or None,
        **_shadow_columns(row, totals),
    }


def _shadow_columns(row: _Stored, totals: _Totals) -> dict[str, object]:
    shadow = row.shadow
    if shadow is None:
        return {}
    actual = totals.shadow_actual(row, shadow)
    values = (shadow.version, shadow.predicted, shadow.probability, bin_of(shadow.probability), actual)
    return dict(zip(_SHADOW_COLUMNS, values, strict=True))
