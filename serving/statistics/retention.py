"""For how long labels are kept, in; labels of older predictions dropped, now and every hour, out.

What is dropped is the row: which prediction, how sure, when. Totals keep its count. Statistics of a window of time that
begins earlier can no longer be told, and predictions of that time can no longer be labelled, since nobody could tell
whether they were before.
"""

import logging
from threading import Event, Thread
from types import TracebackType

from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from serving.system.times import now_ms

INTERVAL_S = 3600.0
AT_ONCE = 5_000
"""Labels dropped in one transaction, so that those that are to be recorded do not wait long."""
MS_PER_DAY = 86_400_000

logger = logging.getLogger(__name__)


class Retention:
    """Drops labels `days` after their prediction, in a thread of its own, until the block is left."""

    def __init__(self, store: StatisticsStore, days: float) -> None:
        self._store = store
        self._days = days
        self._ending = Event()
        self._thread = Thread(target=self._run, name="statistics-retention", daemon=True)

    def __enter__(self) -> "Retention":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._drop()
            except StatisticsUnavailable as error:
                logger.warning("labels older than %g days are dropped later: %s", self._days, error)
            if self._ending.wait(INTERVAL_S):
                return

    def _drop(self) -> None:
        before_ms = max(0, now_ms() - round(self._days * MS_PER_DAY))
        dropped = count = self._store.forget_labels(before_ms, AT_ONCE)
        while count == AT_ONCE and not self._ending.is_set():
            count = self._store.forget_labels(before_ms, AT_ONCE)
            dropped += count
        if dropped:
            logger.info("dropped %d labels of predictions older than %g days", dropped, self._days)
