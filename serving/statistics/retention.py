"""Retention: a thread that deletes labels of old predictions, at once and then every hour.

It deletes the rows, with each prediction's ID, probability and time. Totals keep their counts. Afterwards statistics of
a window that begins earlier are not available, and predictions of that time cannot be labelled, since it is unknown
whether they were labelled before.
"""

import logging
from threading import Event, Thread
from types import TracebackType

from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from serving.system.times import now_ms

INTERVAL_S = 3600.0
CHUNK_ROWS = 5_000
MS_PER_DAY = 86_400_000

logger = logging.getLogger(__name__)


class Retention:
    """Deletes labels `days` after their prediction, in a thread of its own, until the block ends.

    Args:
        store: where the labels are.
        days: how long they are kept.
        chunk_rows: how many labels one transaction deletes; new labels wait for it.
    """

    def __init__(self, store: StatisticsStore, days: float, *, chunk_rows: int = CHUNK_ROWS) -> None:
        self._store = store
        self._days = days
        self._chunk_rows = chunk_rows
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="statistics-retention", daemon=True)

    def __enter__(self) -> "Retention":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._delete()
            except StatisticsUnavailable as error:
                logger.warning("labels older than %g days will be deleted later: %s", self._days, error)
            if self._stopping.wait(INTERVAL_S):
                return

    def _delete(self) -> None:
        before_ms = max(0, now_ms() - round(self._days * MS_PER_DAY))
        deleted = count = self._store.delete_labels(before_ms, self._chunk_rows)
        while count == self._chunk_rows and not self._stopping.is_set():
            count = self._store.delete_labels(before_ms, self._chunk_rows)
            deleted += count
        if deleted:
            logger.info("deleted %d labels of predictions older than %g days", deleted, self._days)
