"""The thread that writes the statistics: labels, registrations and prediction counts of all other threads.

It takes all that waits, writes it in one transaction, and then completes the futures. While the disk syncs one group,
the next one gathers, so that many small requests share each sync.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import inf
from threading import Condition, Lock, Thread
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from serving.bundle.model_version import ModelVersion
from serving.statistics import updates
from serving.statistics.databases.database import Database, StatisticsUnavailable
from serving.statistics.labels import Label, Previous, upsert_labels
from serving.statistics.queries import MS_PER_MINUTE, select_classes
from serving.statistics.schema import check_current, migrating
from serving.statistics.updates import Counts
from serving.system.logs import RateLimitedLogger

MAX_WAITING_LABELS = 100_000
FLUSH_INTERVAL_S = 1.0
MAX_IDLE_S = 0.2
MIGRATION_TIMEOUT_S = 60.0
"""How long a start waits while another process migrates the tables."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class LabelBatch:
    """Labels of one request."""

    labels: Sequence[Label]
    future: Future[list[Previous]] = field(default_factory=Future)


@dataclass(frozen=True)
class WriteTask:
    """Any other work in a transaction."""

    run: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class Group:
    """Labels and tasks that are written in one transaction."""

    batches: list[LabelBatch]
    tasks: list[WriteTask]
    counts: Counts

    @property
    def futures(self) -> list[Future[Any]]:
        """The futures of the labels, then of the tasks."""
        return [*(batch.future for batch in self.batches), *(task.future for task in self.tasks)]


class StatisticsWriter:
    """Owns the only connection that writes.

    If the database fails, the current group fails, and the next one is tried on a new connection.

    Args:
        database: where to write.
        known: class names by version, shared with the caller: they are registered again in a database file that was
            replaced.
        flush_interval_s: how long prediction counts may stay in memory only.
        max_idle_s: a connection that was idle for longer is checked before it is used.
        clock: the time of day in Unix milliseconds.

    Raises:
        ValueError: if a newer pawserve wrote the database.
        StatisticsUnavailable: if the database cannot be opened or written to.
    """

    def __init__(
        self,
        database: Database,
        known: Mapping[ModelVersion, tuple[str, ...]],
        *,
        flush_interval_s: float,
        max_idle_s: float,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._known = known
        self._flush_interval_s = flush_interval_s
        self._max_idle_s = max_idle_s
        self._clock = clock

        self._changed = Condition()  # guards the attributes up to the next blank line
        self._batches: list[LabelBatch] = []
        self._tasks: list[WriteTask] = []
        self._waiting_labels = 0
        self._counts: Counts = Counter()
        self._counts_in_flight: Counts = Counter()
        self._flush_at = inf  # time.monotonic()
        self._closed = False
        self._changes = 0

        self._commit_lock = Lock()  # held while counts move from memory to the database
        self._failing = False
        self._problems = RateLimitedLogger(logger, logging.WARNING)
        self._used_at = time.monotonic()
        self._connection: Connection | None = self._connect(MIGRATION_TIMEOUT_S)
        self._thread = Thread(target=self._run, name="statistics-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write all that waits, including prediction counts, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def changes(self) -> int:
        """A number that grows whenever this process has counted or written something."""
        return self._changes

    def label(self, labels: Sequence[Label]) -> Future[list[Previous]]:
        """Queue labels; the future is completed when they are on the disk.

        Raises:
            StatisticsUnavailable: if too many labels are waiting, or the writer is closed.
        """
        batch = LabelBatch(labels)
        with self._changed:
            self._check_open()
            if self._waiting_labels + len(labels) > MAX_WAITING_LABELS:
                raise StatisticsUnavailable(
                    f"{self._waiting_labels:,} labels are waiting to be written, and {len(labels):,} more would exceed "
                    f"the limit of {MAX_WAITING_LABELS:,}; send them again later"
                )
            self._waiting_labels += len(labels)
            self._batches.append(batch)
            self._changed.notify()
        return batch.future

    def execute(self, run: Callable[[Connection], T]) -> Future[T]:
        """Queue other work for a transaction; the future holds its result once that is committed.

        It finds the labels that were queued before it, even those of the same transaction.

        Raises:
            StatisticsUnavailable: if the writer is closed.
        """
        task = WriteTask(run)
        with self._changed:
            self._check_open()
            self._tasks.append(task)
            self._changed.notify()
        return task.future

    def count(self, version: ModelVersion, predicted: int, count: int) -> None:
        """Add to the prediction counts in memory.

        Raises:
            StatisticsUnavailable: if the writer is closed.
        """
        with self._changed:
            self._check_open()
            minute = self._clock() // MS_PER_MINUTE
            self._counts[version, predicted, minute] += count
            self._changes += 1
            if self._flush_at == inf:
                self._flush_at = time.monotonic() + self._flush_interval_s
                self._changed.notify()

    @contextmanager
    def unwritten_counts(self) -> Iterator[Counts]:
        """The counts that are not in the database; none of them is committed before the block ends."""
        with self._commit_lock:
            with self._changed:
                unwritten = self._counts + self._counts_in_flight
            yield unwritten

    def _check_open(self) -> None:
        if self._closed:
            raise StatisticsUnavailable("the statistics are closed: the server is stopping")

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                results = self._write(group)
            except Exception as error:  # of any kind: the requests must fail, and the next group must be tried
                self._fail(group, error)
            else:
                self._complete(group, results)
        self._disconnect()

    def _next_group(self) -> Group | None:
        """Wait until there is something to write, and take all of it; None when closed and nothing is left."""
        with self._changed:
            while not (self._batches or self._tasks or self._closed or time.monotonic() >= self._flush_at):
                self._changed.wait(None if self._flush_at == inf else max(0.0, self._flush_at - time.monotonic()))
            if not (self._batches or self._tasks or self._counts):
                return None
            # batches that were cancelled before this moment are not written; later cancelling has no effect
            batches = [batch for batch in self._batches if batch.future.set_running_or_notify_cancel()]
            group = Group(batches, self._tasks, self._counts)
            self._batches, self._tasks, self._counts = [], [], Counter()
            self._waiting_labels, self._counts_in_flight, self._flush_at = 0, group.counts, inf
            return group

    def _write(self, group: Group) -> list[Any]:
        """Write a group in one transaction; return the results of its futures."""
        connection = self._live_connection()
        with ExitStack() as after_commit:
            with self._database.writing(connection):
                check_current(connection)
                since_ms = updates.advance_revision(connection)
                labels = [label for batch in group.batches for label in batch.labels]
                classes_of = partial(self.classes_of, connection)
                previous = iter(upsert_labels(connection, labels, self._clock(), since_ms, classes_of))
                results: list[Any] = [list(islice(previous, len(batch.labels))) for batch in group.batches]
                results += [task.run(connection) for task in group.tasks]  # after the labels, which one may delete
                if group.counts:
                    updates.add_predictions(connection, group.counts)
                    after_commit.enter_context(self._commit_lock)
            with self._changed:
                self._counts_in_flight = Counter()
                self._changes += 1
        self._used_at = time.monotonic()
        return results

    def classes_of(self, connection: Connection, version: ModelVersion) -> tuple[str, ...] | None:
        """A version's class names, in a transaction of this writer; None if it was never registered."""
        return self._known.get(version) or select_classes(connection, version)

    def _live_connection(self) -> Connection:
        """The current connection, or a new one if it broke while it was idle."""
        idle_s = time.monotonic() - self._used_at
        if self._connection is not None and idle_s > self._max_idle_s and not self._database.is_alive(self._connection):
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _complete(self, group: Group, results: list[Any]) -> None:
        if self._failing:
            logger.info("statistics can be written again")
            self._failing = False
            self._problems.reset()
        for future, result in zip(group.futures, results, strict=True):
            future.set_result(result)

    def _fail(self, group: Group, error: Exception) -> None:
        self._disconnect()
        self._problems.log(f"statistics cannot be written, and labels are rejected: {error}")
        self._failing = True
        kept = updates.coarsen(group.counts)
        with self._changed:
            self._counts_in_flight = Counter()
            if self._closed:
                if group.counts:
                    logger.error("%d predictions were not counted before the server stopped", group.counts.total())
            elif kept:
                self._counts.update(kept)
                self._flush_at = time.monotonic() + self._flush_interval_s
        for future in group.futures:
            failure = StatisticsUnavailable(str(error))  # one for each: raising it adds to its traceback
            failure.__cause__ = error
            future.set_exception(failure)

    def _connect(self, migration_timeout_s: float | None = None) -> Connection:
        connection = self._database.connect()
        try:
            with migrating(self._database, connection, migration_timeout_s):
                updates.advance_revision(connection)  # fails now if the database is read-only
                for version, classes in list(self._known.items()):
                    updates.check_classes(version, updates.register(connection, version, classes), classes)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # the connection may be broken
                self._connection.close()
            self._connection = None
