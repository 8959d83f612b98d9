"""Prediction counts that wait for their database in; no more of them than fit, and none lost, out.

Labels, registrations and prediction counts of many threads in; one thread's transactions in the database out.

The thread takes all that waits, writes it in one transaction, and only then answers. While the disk syncs one group
the next one gathers, so that many small callers share each sync.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from threading import Condition, Lock, Thread
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from serving.statistics import updates as updates
from serving.statistics.database import Database, StatisticsUnavailable
from serving.statistics.migrations import check_current, preparing
from serving.statistics.queries import MS_PER_MINUTE
from serving.statistics.updates import Counts, Group, Label, LabelBatch, Previous, WriteTask
from serving.system.logs import RateLimitedLogger
from serving.system.times import now_ms

MOST = 10_000


def joined(counts: Counts, most: int = MOST) -> Counts:
    """The counts, minutes joined into spans of 2, 4, 8 … minutes if there would be more than `most` of them otherwise.

    A span's count is that of its first minute with one. How often a version predicted a class stays as it was, so one
    count for each (model, version, class) is left, however many those are.
    """
    if len(counts) <= most:
        return counts
    first, last = min(key[-1] for key in counts), max(key[-1] for key in counts)
    minutes = 1 if len({key[:-1] for key in counts}) <= most else max(1, last - first)
    while len(counts) > most and minutes <= last - first:
        minutes *= 2
        fewer: Counts = Counter()
        begins: dict[tuple[str, int, int, int], int] = {}
        for (model, version, predicted, minute), count in sorted(counts.items()):
            begin = begins.setdefault((model, version, predicted, (minute - first) // minutes), minute)
            fewer[model, version, predicted, begin] += count
        counts = fewer
    return counts


MAX_WAITING_LABELS = 100_000
FLUSH_INTERVAL_S = 1.0
"""How long prediction counts may stay in memory only."""
IDLE_S = 0.2
"""A connection that was not used for so long is tried before it is used."""
MIGRATION_PATIENCE_S = 60.0
"""How long a start waits while another process makes or changes the tables."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StatisticsWriter:
    """Owns the only connection that writes. When the database fails, the group in hand fails with it, and the next
    one tries again on a new connection.

    Args:
        database: where to write.
        known: class names by (model, version), shared with the caller: a file that was replaced is told them again.

    Raises:
        ValueError: if a newer pawserve wrote the database.
        StatisticsUnavailable: if the database cannot be opened or written to.
    """

    def __init__(self, database: Database, known: Mapping[tuple[str, int], tuple[str, ...]]) -> None:
        self._database = database
        self._known = known

        self._changed = Condition()  # guards what follows, up to the next blank line
        self._label_batches: list[LabelBatch] = []
        self._tasks: list[WriteTask] = []
        self._waiting_labels = 0
        self._counts: Counts = Counter()
        self._counts_in_flight: Counts = Counter()
        self._flush_at = inf  # time.monotonic()
        self._closed = False
        self._changes = 0

        self._counts_landing = Lock()  # held while counts pass from memory to where reads see them
        self._failing = False
        self._trouble = RateLimitedLogger(logger, logging.WARNING)
        self._used_at = time.monotonic()
        self._connection: Connection | None = self._connect(MIGRATION_PATIENCE_S)
        self._thread = Thread(target=self._run, name="statistics-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write all that waits, prediction counts included, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def changes(self) -> int:
        """A number that grows whenever this process has counted or written something."""
        return self._changes

    def label(self, labels: Sequence[Label]) -> Future[list[Previous]]:
        """Queue labels; the future holds the class index that was recorded before each, once they are on the disk.

        Raises:
            StatisticsUnavailable: if too many labels are waiting, or the writer is closed.
        """
        batch = LabelBatch(labels)
        with self._changed:
            self._refuse_if_closed()
            if self._waiting_labels + len(labels) > MAX_WAITING_LABELS:
                raise StatisticsUnavailable(
                    f"{self._waiting_labels:,} labels are waiting to be written, and with {len(labels):,} more they "
                    f"would be over {MAX_WAITING_LABELS:,}; send these again later"
                )
            self._waiting_labels += len(labels)
            self._label_batches.append(batch)
            self._changed.notify()
        return batch.future

    def execute(self, run: Callable[[Connection], T]) -> Future[T]:
        """Queue something else to be done in a transaction; the future holds what it returned, once that is committed.

        Raises:
            StatisticsUnavailable: if the writer is closed.
        """
        task = WriteTask(run)
        with self._changed:
            self._refuse_if_closed()
            self._tasks.append(task)
            self._changed.notify()
        return task.future

    def count(self, model: str, version: int, predicted: int, count: int) -> None:
        """Add to the counts in memory.

        Raises:
            StatisticsUnavailable: if the writer is closed.
        """
        with self._changed:
            self._refuse_if_closed()
            minute = now_ms() // MS_PER_MINUTE
            self._counts[model, version, int(predicted), minute] += count  # numpy's integers cannot be written
            self._changes += 1
            if self._flush_at == inf:
                self._flush_at = time.monotonic() + FLUSH_INTERVAL_S
                self._changed.notify()

    @contextmanager
    def holding_counts(self) -> Iterator[Counts]:
        """What is counted but not in the database; none of it gets there before the block is left."""
        with self._counts_landing:
            with self._changed:
                unwritten = self._counts + self._counts_in_flight
            yield unwritten

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StatisticsUnavailable("the statistics are closed: the server is stopping")

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                results, previous = self._write(group)
            except Exception as error:  # whatever it was, callers must hear of it, and the next group be tried
                self._fail(group, error)
            else:
                self._answer(group, results, previous)
        self._disconnect()

    def _next_group(self) -> Group | None:
        """Wait until there is something to write, and take all of it; None when closed and nothing is left."""
        with self._changed:
            while not (self._label_batches or self._tasks or self._closed or time.monotonic() >= self._flush_at):
                self._changed.wait(None if self._flush_at == inf else max(0.0, self._flush_at - time.monotonic()))
            if not (self._label_batches or self._tasks or self._counts):
                return None
            # From here on a caller who gives up cannot cancel; what was cancelled before is not written.
            label_batches = [each for each in self._label_batches if each.future.set_running_or_notify_cancel()]
            group = Group(label_batches, self._tasks, self._counts)
            self._label_batches, self._tasks, self._counts = [], [], Counter()
            self._waiting_labels, self._counts_in_flight, self._flush_at = 0, group.counts, inf
            return group

    def _write(self, group: Group) -> tuple[list[Any], list[Previous]]:
        """Write a group in one transaction; what its tasks returned, and the labels before its own."""
        connection = self._sound_connection()
        with ExitStack() as after_commit:
            with self._database.writing(connection):
                check_current(connection)
                since_ms = updates.advance_revision(connection)
                results = [task.run(connection) for task in group.tasks]
                labels = [label for batch in group.label_batches for label in batch.labels]
                previous = updates.upsert_labels(connection, labels, now_ms(), since_ms)
                if group.counts:
                    updates.add_predictions(connection, group.counts)
                    after_commit.enter_context(self._counts_landing)
            with self._changed:
                self._counts_in_flight = Counter()
                self._changes += 1
        self._used_at = time.monotonic()
        return results, previous

    def _sound_connection(self) -> Connection:
        """The one that there is; another, if that broke while it was idle: nobody need be refused for it."""
        idle_s = time.monotonic() - self._used_at
        if self._connection is not None and idle_s > IDLE_S and not self._database.is_sound(self._connection):
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _answer(self, group: Group, results: list[Any], previous: list[Previous]) -> None:
        if self._failing:
            logger.info("statistics are written again")
            self._failing = False
            self._trouble.reset()
        for task, result in zip(group.tasks, results, strict=True):
            task.future.set_result(result)
        start = 0
        for batch in group.label_batches:
            end = start + len(batch.labels)
            batch.future.set_result(previous[start:end])
            start = end

    def _fail(self, group: Group, error: Exception) -> None:
        self._disconnect()
        self._trouble.log(f"statistics are not written, labels are refused: {error}")
        self._failing = True
        waiting = joined(group.counts)
        with self._changed:
            self._counts_in_flight = Counter()
            if self._closed:
                if group.counts:
                    logger.error("%d predictions could not be counted before the end", group.counts.total())
            elif waiting:
                self._counts.update(waiting)
                self._flush_at = time.monotonic() + FLUSH_INTERVAL_S
        requests: list[WriteTask | LabelBatch] = [*group.tasks, *group.label_batches]
        for request in requests:
            failure = StatisticsUnavailable(str(error))  # each its own: whoever raises one adds to its traceback
            failure.__cause__ = error
            request.future.set_exception(failure)

    def _connect(self, migration_patience_s: float | None = None) -> Connection:
        connection = self._database.connect()
        try:
            with preparing(self._database, connection, migration_patience_s):
                updates.advance_revision(connection)  # finds out now if the database can only be read
                for (model, version), classes in list(self._known.items()):
                    stored = updates.register(connection, model, version, classes)
                    updates.check_classes(model, version, stored, classes)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # it may be the reason for which it is given up
                self._connection.close()
            self._connection = None
