"""Pairs: labelled images that two versions of a model classified, and how often each version was correct."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, case, func, select

from serving.bundle.model_version import ModelVersion
from serving.statistics import schema
from serving.statistics.queries import Window, between, check_kept, only, signed_queries


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
    counts_K22 = np.zeros((len(classes), 2, 2), np.int64)
    not_comparable = 0
    totals = _read_totals(version, shadow_version)
    for sign, query in signed_queries(window, totals, lambda part: _count_labels(version, shadow_version, part)):
        for actual, correct, shadow_correct, count in connection.execute(query):
            if shadow_correct == schema.NO_SUCH_CLASS:
                not_comparable += sign * count
            else:
                counts_K22[actual, correct, shadow_correct] += sign * count
    return Pairs(version, ModelVersion(version.name, shadow_version), classes, counts_K22, not_comparable)


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
