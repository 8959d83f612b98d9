"""The statistics store: labels and prediction counts of all model versions in one database."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType

from serving.bundle.model_version import ModelVersion
from serving.statistics import queries, updates
from serving.statistics.databases.database import LOCK_TIMEOUT_S, StatisticsUnavailable
from serving.statistics.databases.opening import open_database
from serving.statistics.labels import Label, LabelExpired, Previous, ShadowResult, attach_shadows
from serving.statistics.pairs import Pairs, select_pairs
from serving.statistics.queries import ALL_TIME, Window, WindowExpired
from serving.statistics.version_statistics import VersionStatistics, version_statistics
from serving.statistics.writer import FLUSH_INTERVAL_S, MAX_IDLE_S, StatisticsWriter
from serving.system.times import now_ms

__all__ = [
    "ALL_TIME",
    "Label",
    "LabelExpired",
    "Pairs",
    "ShadowResult",
    "StatisticsStore",
    "StatisticsUnavailable",
    "VersionStatistics",
    "Window",
    "WindowExpired",
    "open_database",
]


class StatisticsStore:
    """Labels and prediction counts of all model versions, in one database. Any thread may call every method.

    Several processes may use one database. A process that is killed loses no acknowledged label, and at most the
    prediction counts of its last second. Predictions are counted by the minute; labels by the millisecond of their
    prediction.

    Args:
        url_or_path: a path to a SQLite file, sqlite:///PATH, or postgresql://USER@HOST/DATABASE. A file is created if
            it does not exist; it must be on a local disk. Tables of an earlier pawserve are migrated.
        lock_timeout_s: how long a transaction waits while another process writes.
        flush_interval_s: how long prediction counts may stay in memory only.
        max_idle_s: the writer checks a connection that was idle for longer before it uses it.
        clock: the time of day in Unix milliseconds.

    Raises:
        ValueError: if the URL is of another kind, or a newer pawserve wrote the database.
        StatisticsUnavailable: if the database cannot be opened or written to.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        max_idle_s: float = MAX_IDLE_S,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._database = open_database(url_or_path, lock_timeout_s)
        self._classes: dict[ModelVersion, tuple[str, ...]] = {}
        self._writer = StatisticsWriter(
            self._database, self._classes, flush_interval_s=flush_interval_s, max_idle_s=max_idle_s, clock=clock
        )

    def __enter__(self) -> "StatisticsStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write all that waits, including prediction counts, and stop; later calls fail."""
        self._writer.close()
        self._database.close()

    def register_version(self, version: ModelVersion, classes: Sequence[str]) -> None:
        """Store a version's class names for good; its labels and predictions are accepted from then on.

        Raises:
            ValueError: if the version was registered with other classes, with both in the message, or its number is
                not 1 to 2^63 - 1.
            StatisticsUnavailable: if the database cannot be written to.
        """
        if not 1 <= version.version < 2**63:
            raise ValueError(f"version of {version.name} is {version.version}; it must be 1 to 2^63 - 1")
        stored = self._writer.execute(partial(updates.register, version=version, classes=tuple(classes))).result()
        updates.check_classes(version, stored, tuple(classes))
        self._classes[version] = stored

    def classes_of(self, version: ModelVersion) -> tuple[str, ...] | None:
        """A version's class names in index order, whether it is loaded or not; None if it was never registered.

        Only the first call for a version reads the database.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        classes = self._classes.get(version)
        if classes is None:
            with self._database.reading() as connection:
                classes = queries.select_classes(connection, version)
            if classes is not None:
                self._classes[version] = classes
        return classes

    def record(self, labels: Sequence[Label]) -> Future[list[Previous]]:
        """Record labels. Each prediction counts once, with its latest label.

        A label with the result of a shadow version, in itself or attached before, counts once for that version too, and
        once for the pair.

        The database is read here only for versions that `classes_of` was never called for.

        Returns:
            A future that is completed when the labels are on the disk: for each label the class index that was recorded
            before, None for none, or a LabelExpired if the prediction is older than labels are kept, which is then not
            recorded. If the database fails, it raises StatisticsUnavailable, none of the labels is recorded, and all
            may be sent again. If it is cancelled before the write begins, the labels are not recorded.

        Raises:
            ValueError: if a label's version was never registered or has no class of that index, or if that is so for
                its shadow version, which must be another one.
            StatisticsUnavailable: if too many labels are waiting (100,000), or the store is closed.
        """
        labels = tuple(labels)
        for label in labels:
            version = label.record.model_version
            classes = self.classes_of(version)
            _check_index("actual", label.actual, version, classes)
            _check_index("predicted", label.record.predicted, version, classes)
            if label.shadow:
                self._check_shadow(version, label.shadow)
        return self._writer.label(labels)

    def attach_shadows(self, results: Sequence[tuple[bytes, ShadowResult]]) -> Future[int]:
        """Count results of shadow versions that came after their prediction's label, by the prediction's ID.

        Labels that were given to `record` before this call are found, even if they are not on the disk yet. Each
        prediction counts for one shadow version at most, once; further results change nothing. Results that cannot be
        counted are left out: without a label, of the version that answered, of an unregistered version or class.

        Returns:
            A future that holds how many were counted, once they are on the disk. If the database fails, it raises
            StatisticsUnavailable, none is counted, and all may be sent again.

        Raises:
            StatisticsUnavailable: if the store is closed.
        """
        results = tuple(results)
        classes_of = self._writer.classes_of
        return self._writer.execute(
            lambda connection: attach_shadows(connection, results, partial(classes_of, connection))
        )

    def count_predictions(self, version: ModelVersion, predicted: int, count: int = 1) -> None:
        """Count predictions of one class in memory; they are written with the next labels or within a second.

        Raises:
            ValueError: if this store does not know the version, or the version has no class of that index.
            StatisticsUnavailable: if the store is closed.
        """
        _check_index("predicted", predicted, version, self._classes.get(version))
        self._writer.count(version, predicted, count)

    def read(
        self, model: str | None = None, version: int | None = None, window: Window = ALL_TIME
    ) -> list[VersionStatistics]:
        """Read the statistics of all versions that have any, ordered by name and version.

        They show one moment, and include the predictions that this process has counted but not written yet. A window
        selects labels by the millisecond of their prediction, and predictions by the minutes that overlap it.

        Args:
            model: only this model; None for all.
            version: only this version number; None for all.
            window: only predictions of this time.

        Raises:
            WindowExpired: if labels of the window have been deleted.
            StatisticsUnavailable: if the database cannot be read.
        """
        with self._database.reading() as connection:
            with self._writer.unwritten_counts() as unwritten:
                predictions = queries.select_predictions(connection, model, version, window)
            for (key, _, minute), count in unwritten.items():
                if key.matches(model, version) and window.overlaps(minute):
                    predictions[key] += count
            outcomes = queries.select_outcomes(connection, model, version, window)
            last_labels = queries.select_last_labels(connection, model, version, window)
            labelled = {key for key, found in outcomes.items() if sum(each.count for each in found)}
            keys = sorted((+predictions).keys() | labelled)
            classes = {key: self._classes.get(key) or queries.select_classes(connection, key) for key in keys}
        return [
            version_statistics(key, classes[key], predictions[key], outcomes.get(key, []), last_labels.get(key))
            for key in keys
        ]

    def read_pairs(self, model: str, version: int, shadow_version: int, window: Window = ALL_TIME) -> Pairs:
        """Read how often each of two versions was correct, of the labelled images that both classified.

        Args:
            model: their model.
            version: the version that answered.
            shadow_version: the shadow version.
            window: only predictions of this time.

        Raises:
            LookupError: if `version` was never registered.
            WindowExpired: if labels of the window have been deleted.
            StatisticsUnavailable: if the database cannot be read.
        """
        key = ModelVersion(model, version)
        classes = self.classes_of(key)
        if classes is None:
            raise LookupError(f"{key} was never served with these statistics")
        with self._database.reading() as connection:
            return select_pairs(connection, key, shadow_version, window, classes)

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

    def delete_labels(self, before_ms: int, limit: int) -> int:
        """Delete labels of predictions from before a time, in Unix milliseconds; totals keep them.

        From now on such predictions can no longer be labelled, and windows can no longer begin or end before that time,
        even if not all of its labels are deleted yet.

        Args:
            before_ms: the time; a time before an earlier call's has no further effect.
            limit: how many to delete; labels that arrive meanwhile wait for them.

        Returns:
            How many labels were deleted.

        Raises:
            StatisticsUnavailable: if the database cannot be written to.
        """
        return self._writer.execute(partial(updates.delete_labels, before_ms=before_ms, limit=limit)).result()

    def _check_shadow(self, version: ModelVersion, shadow: ShadowResult) -> None:
        if shadow.version == version.version:
            raise ValueError(f"the shadow's version is {version}, which answered itself; it must be another version")
        if not 0.0 <= shadow.probability <= 1.0:
            raise ValueError(f"the shadow's probability is {shadow.probability}; it must be 0 to 1")
        shadow_version = ModelVersion(version.name, shadow.version)
        _check_index("the shadow's predicted", shadow.predicted, shadow_version, self.classes_of(shadow_version))


def _check_index(name: str, index: int, version: ModelVersion, classes: tuple[str, ...] | None) -> None:
    if classes is None:
        raise ValueError(f"{version} is not registered, so its classes are unknown")
    if not 0 <= index < len(classes):
        raise ValueError(f"{name} is {index}; {version} has {len(classes)} classes: 0 to {len(classes) - 1}")
