"""Labels and prediction counts in, on the disk when acknowledged; confusion matrices of every model version out."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from serving import statistics_tables as tables
from serving.confusion import ConfusionMatrix
from serving.statistics_database import Database, StatisticsUnavailable
from serving.statistics_tables import Label, Outcome
from serving.statistics_writer import StatisticsWriter

__all__ = ["Label", "StatisticsStore", "StatisticsUnavailable", "VersionStatistics"]


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


class StatisticsStore:
    """Labels and prediction counts of all model versions, in one SQLite file. Any thread may call every method.

    Several processes may use one file. A process that is killed loses no acknowledged label, and at most the
    prediction counts of its last second.

    Args:
        url_or_path: a path, or sqlite:///PATH; the file is made if there is none. It must be on a local disk.

    Raises:
        ValueError: if the URL is of another kind, or a newer pawserve wrote the file.
        StatisticsUnavailable: if the file cannot be opened or written to.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        self._database = Database(url_or_path)
        self._classes: dict[tuple[str, int], tuple[str, ...]] = {}
        self._writer = StatisticsWriter(self._database, self._classes)

    def __enter__(self) -> "StatisticsStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write all that waits, prediction counts included, and stop; what comes later is refused."""
        self._writer.close()

    def register_version(self, model: str, version: int, classes: Sequence[str]) -> None:
        """Keep a version's class names for good; before, its labels and predictions are refused.

        Raises:
            ValueError: if the version was registered with other classes; the message has both. If it is no 64-bit
                number from 1.
            StatisticsUnavailable: if that could not be written.
        """
        if not 1 <= version < 2**63:
            raise ValueError(f"version of {model} is {version}; it must be 1 to 2^63 - 1")
        stored = self._writer.register(model, version, tuple(classes)).result()
        tables.check_classes(model, version, stored, tuple(classes))
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
                classes = tables.select_classes(connection, model, version)
            if classes is not None:
                self._classes[model, version] = classes
        return classes

    def record(self, labels: Sequence[Label]) -> Future[list[int | None]]:
        """Record what turned out to be true. Each token counts once, with the label that it was given last.

        The database is read here only for versions that `classes_of` was never asked for.

        Returns:
            A future that is resolved when the labels are on the disk: for each, the class index that was recorded
            for its token before, or None. If the database does not take them it fails with StatisticsUnavailable,
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

    def read(self, model: str | None = None, version: int | None = None) -> list[VersionStatistics]:
        """The statistics of each version with predictions or labels, by model and version; or of those asked for.

        They show one moment, and include the predictions that this process has counted but not written yet.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        predictions: Counter[tuple[str, int]] = Counter()
        outcomes: defaultdict[tuple[str, int], list[Outcome]] = defaultdict(list)
        with self._database.reading() as connection:
            with self._writer.holding_counts() as unwritten:
                for name, number, count in tables.select_predictions(connection, model, version):
                    predictions[name, number] += count
            for (name, number, _), count in unwritten.items():
                if model in (None, name) and version in (None, number):
                    predictions[name, number] += count
            for name, number, outcome in tables.select_outcomes(connection, model, version):
                outcomes[name, number].append(outcome)
            keys = sorted(predictions.keys() | outcomes.keys())
            classes = [self._classes.get(key) or tables.select_classes(connection, *key) for key in keys]
        return [
            _version_statistics(*key, names, predictions[key], outcomes[key])
            for key, names in zip(keys, classes, strict=True)
        ]


def _version_statistics(
    model: str, version: int, classes: tuple[str, ...] | None, predictions: int, outcomes: Sequence[Outcome]
) -> VersionStatistics:
    assert classes is not None  # a foreign key sees to it
    counts_KK = np.zeros((len(classes), len(classes)), np.int64)
    for outcome in outcomes:
        counts_KK[outcome.actual, outcome.predicted] = outcome.count
    counts_KK.setflags(write=False)  # so that the matrix need not copy it
    last_label_ms = max((outcome.last_label_ms for outcome in outcomes), default=None)
    return VersionStatistics(model, version, classes, ConfusionMatrix(classes, counts_KK), predictions, last_label_ms)


def _check_index(name: str, index: int, model: str, version: int, classes: tuple[str, ...] | None) -> None:
    if classes is None:
        raise ValueError(f"{model} version {version} is not registered, so its classes are unknown")
    if not 0 <= index < len(classes):
        raise ValueError(
            f"{name} is {index}; {model} version {version} has {len(classes)} classes: 0 to {len(classes) - 1}"
        )
