"""Labels and prediction counts in, on the disk when acknowledged; confusion matrices of every model version out."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from serving.statistics import queries as queries
from serving.statistics import updates as updates
from serving.statistics.calibration import Bin, to_bins
from serving.statistics.confusion import ConfusionMatrix
from serving.statistics.database import StatisticsUnavailable, open_database
from serving.statistics.queries import ALL_TIME, OutcomeCount, Window, WindowExpired
from serving.statistics.updates import Label, LabelExpired, Previous
from serving.statistics.writer import StatisticsWriter

__all__ = [
    "ALL_TIME",
    "Label",
    "LabelExpired",
    "StatisticsStore",
    "StatisticsUnavailable",
    "VersionStatistics",
    "Window",
    "WindowExpired",
]


@dataclass(frozen=True)
class VersionStatistics:
    """What one model version predicted, against what turned out to be true."""

    model: str
    version: int
    classes: tuple[str, ...]
    confusion: ConfusionMatrix
    """Labelled predictions; each is counted once, with the label it had last."""
    predictions: int
    """How many predictions were made, labelled or not."""
    last_label_ms: int | None
    """When the newest label was recorded, in Unix milliseconds; None if there is none."""
    calibration: tuple[Bin, ...]
    """How sure the labelled predictions were, and how often they were right."""


class StatisticsStore:
    """Labels and prediction counts of all model versions, in one database. Any thread may call every method.

    Several processes may use one database. A process that is killed loses no acknowledged label, and at most the
    prediction counts of its last second. Predictions are counted by the minute; labels by the millisecond of their
    prediction.

    Args:
        url_or_path: a path to a SQLite file, sqlite:///PATH, or postgresql://USER@HOST/DATABASE. A file is made if
            there is none; it must be on a local disk. Tables that an earlier pawserve made are changed to this one's.

    Raises:
        ValueError: if the URL is of another kind, or a newer pawserve wrote the database.
        StatisticsUnavailable: if the database cannot be opened or written to.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        self._database = open_database(url_or_path)
        self._classes: dict[tuple[str, int], tuple[str, ...]] = {}
        self._writer = StatisticsWriter(self._database, self._classes)

    def __enter__(self) -> "StatisticsStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write all that waits, prediction counts included, and stop; what comes later is refused."""
        self._writer.close()
        self._database.close()

    def register_version(self, model: str, version: int, classes: Sequence[str]) -> None:
        """Keep a version's class names for good; before, its labels and predictions are refused.

        Raises:
            ValueError: if the version was registered with other classes; the message has both. If it is no 64-bit
                number from 1.
            StatisticsUnavailable: if that could not be written.
        """
        if not 1 <= version < 2**63:
            raise ValueError(f"version of {model} is {version}; it must be 1 to 2^63 - 1")
        registering = partial(updates.register, model=model, version=version, classes=tuple(classes))
        stored = self._writer.execute(registering).result()
        updates.check_classes(model, version, stored, tuple(classes))
        self._classes[model, version] = stored

    def classes_of(self, model: str, version: int) -> tuple[str, ...] | None:
        """A version's class names in index order, loaded or not; None if it was never registered.

        The database is read the first time only.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        classes = self._classes.get((model, version))
        if classes is None:
            with self._database.reading() as connection:
                classes = queries.select_classes(connection, model, version)
            if classes is not None:
                self._classes[model, version] = classes
        return classes

    def record(self, labels: Sequence[Label]) -> Future[list[Previous]]:
        """Record what turned out to be true. Each token counts once, with the label that it was given last.

        The database is read here only for versions that `classes_of` was never asked for.

        Returns:
            A future that is resolved when the labels are on the disk: for each, the class index that was recorded
            for its token before, None, or a LabelExpired: labels are kept for predictions of some time, and this one
            is older, so it was not recorded. If the database does not take them it fails with StatisticsUnavailable,
            none of them is recorded, and all may be sent again. Cancelled in time, it leaves them unwritten.

        Raises:
            ValueError: if a label's version was never registered, or an index is not one of its classes'.
            StatisticsUnavailable: if too many labels are waiting already (100,000), or the store is closed.
        """
        labels = tuple(labels)
        for label in labels:
            record = label.record
            classes = self.classes_of(record.model, record.version)
            _check_index("actual", label.actual, record.model, record.version, classes)
            _check_index("predicted", record.predicted, record.model, record.version, classes)
        return self._writer.label(labels)

    def count_predictions(self, model: str, version: int, predicted: int, count: int = 1) -> None:
        """Count predictions of one class, in memory; they are written with the next labels, or within a second.

        Raises:
            ValueError: if the version is not known to this store yet, or has no class of that index.
            StatisticsUnavailable: if the store is closed.
        """
        _check_index("predicted", predicted, model, version, self._classes.get((model, version)))
        self._writer.count(model, version, predicted, count)

    def read(
        self, model: str | None = None, version: int | None = None, window: Window = ALL_TIME
    ) -> list[VersionStatistics]:
        """The statistics of each version with predictions or labels, by model and version; or of those asked for.

        They show one moment, and include the predictions that this process has counted but not written yet. A window
        takes labels by the millisecond of their prediction, and predictions by the minutes that it touches.

        Raises:
            WindowExpired: if the window needs labels that are no longer kept.
            StatisticsUnavailable: if the database cannot be read.
        """
        with self._database.reading() as connection:
            with self._writer.holding_counts() as unwritten:
                predictions = queries.select_predictions(connection, model, version, window)
            for (name, number, _, minute), count in unwritten.items():
                if model in (None, name) and version in (None, number) and window.touches(minute):
                    predictions[name, number] += count
            outcomes = queries.select_outcomes(connection, model, version, window)
            last_labels = queries.select_last_labels(connection, model, version, window)
            keys = sorted((+predictions).keys() | {key for key, found in outcomes.items() if found})
            classes = {key: self._classes.get(key) or queries.select_classes(connection, *key) for key in keys}
        return [
            _version_statistics(key, classes[key], predictions[key], outcomes.get(key, []), last_labels.get(key))
            for key in keys
        ]

    @property
    def changes(self) -> int:
        """A number that grows whenever this process has counted or written something."""
        return self._writer.changes

    def revision(self) -> int:
        """A number that grows whenever any process has written something.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        with self._database.reading() as connection:
            return queries.select_revision(connection)

    def forget_labels(self, before_ms: int, most: int) -> int:
        """Drop labels of predictions that were made before a time, in Unix milliseconds; how many were dropped.

        Totals keep them. From now on such predictions can no longer be labelled, and windows can no longer begin or end
        before that time, whether all of its labels are dropped yet or not.

        Args:
            before_ms: the time; one that is earlier than what was said before brings nothing back.
            most: how many to drop; labels that are to be recorded meanwhile wait for them.

        Raises:
            StatisticsUnavailable: if that could not be written.
        """
        return self._writer.execute(partial(updates.forget_labels, before_ms=before_ms, most=most)).result()


def _version_statistics(
    key: queries.Key,
    classes: tuple[str, ...] | None,
    predictions: int,
    outcomes: Sequence[OutcomeCount],
    last_label_ms: int | None,
) -> VersionStatistics:
    assert classes is not None  # a foreign key sees to it
    counts_KK = np.zeros((len(classes), len(classes)), np.int64)
    for each in outcomes:
        counts_KK[each.actual, each.predicted] += each.count
    counts_KK.setflags(write=False)  # so that the matrix need not copy it
    confusion = ConfusionMatrix(classes, counts_KK)
    tallies = (
        (each.calibration_bin, each.count, each.count * (each.actual == each.predicted), each.probability_sum)
        for each in outcomes
    )
    # what a killed process had counted last is lost, but what has a label was predicted
    predictions = max(predictions, confusion.total)
    return VersionStatistics(*key, classes, confusion, predictions, last_label_ms, to_bins(tallies))


def _check_index(name: str, index: int, model: str, version: int, classes: tuple[str, ...] | None) -> None:
    if classes is None:
        raise ValueError(f"{model} version {version} is not registered, so its classes are unknown")
    if not 0 <= index < len(classes):
        raise ValueError(
            f"{name} is {index}; {model} version {version} has {len(classes)} classes: 0 to {len(classes) - 1}"
        )
