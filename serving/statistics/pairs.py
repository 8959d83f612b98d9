"""Pairs: labelled images that two versions of a model classified, and how often each version was correct."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, case, func, select

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema
from serving.statistics.queries import Window, between, check_kept, only


@dataclass(frozen=True, eq=False)
class Pairs:
    """Labelled images that two versions of one model classified: how often each of them was correct."""

    version: ModelVersion
    """The version that answered."""
    shadow: ModelVersion
    classes: tuple[str, ...]
    """The classes of `version`."""
    counts_K22: NDArray[np.int64]
    """int64 `[K, 2, 2]`: [label, whether `version` was correct, whether `shadow` was]."""
    not_comparable: int
    """Further images whose label is no class of the shadow version."""


def select_pairs(
    connection: Connection, version: ModelVersion, shadow_version: int, window: Window, classes: tuple[str, ...]
) -> Pairs:
    """How often two versions were correct, of the labelled images in the window that both classified.

    Raises:
        WindowExpired: if labels of the window have been deleted.
    """
    check_kept(connection, window)
    if window.start_ms is not None:
        counts = _read_counts(connection, _count_labels(version, shadow_version, window))
    else:
        counts = _read_counts(connection, _read_totals(version, shadow_version))
        if window.end_ms is not None:
            # labels before the window's end may have been deleted, later ones are all there
            later = _count_labels(version, shadow_version, Window(start_ms=window.end_ms))
            counts.subtract(_read_counts(connection, later))
    counts_K22 = np.zeros((len(classes), 2, 2), np.int64)
    not_comparable = 0
    for (actual, correct, shadow_correct), count in counts.items():
        if shadow_correct == schema.NO_SUCH_CLASS:
            not_comparable += count
        else:
            counts_K22[actual, correct, shadow_correct] += count
    return Pairs(version, ModelVersion(version.name, shadow_version), classes, counts_K22, not_comparable)


def _read_counts(connection: Connection, query: Select[Any]) -> Counter[tuple[int, int, int]]:
    rows = connection.execute(query)
    return Counter({(actual, correct, shadow_correct): int(count) for actual, correct, shadow_correct, count in rows})


def _read_totals(version: ModelVersion, shadow_version: int) -> Select[Any]:
    columns = schema.paired_outcomes.c
    query = select(columns.actual, columns.version_correct, columns.shadow_correct, columns.count)
    return query.where(*only(columns, version.name, version.version), columns.shadow_version == shadow_version)


def _count_labels(version: ModelVersion, shadow_version: int, window: Window) -> Select[Any]:
    columns = schema.labels.c
    correct = case((columns.actual == columns.predicted, 1), else_=0)
    shadow_correct = case(
        (columns.shadow_actual.is_(None), schema.NO_SUCH_CLASS),
        (columns.shadow_actual == columns.shadow_predicted, 1),
        else_=0,
    )
    where = (
        *between(columns.predicted_at, window.start_ms, window.end_ms),
        *only(columns, version.name, version.version),
        columns.shadow_version == shadow_version,
    )
    cells = select(columns.actual, correct.label("correct"), shadow_correct.label("shadow_correct")).where(*where)
    cell = cells.subquery().c  # so that the database need not recognize the expressions in GROUP BY
    group = (cell.actual, cell.correct, cell.shadow_correct)
    return select(*group, func.count()).group_by(*group)
