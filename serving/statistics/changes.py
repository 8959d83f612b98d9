"""One look at the statistics for all who watch them: read again only when something has changed, and never by two.

What this process counts and writes is noticed at the next look; what others write to the database, within a second.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from serving.statistics.store import StatisticsStore, VersionStatistics

LOOK_INTERVAL_S = 0.1
OTHERS_INTERVAL_S = 1.0
"""How often the database is asked whether other processes wrote to it."""


class StatisticsFeed:
    """Statistics of all versions, shared by those who watch them. For one event loop; costs nothing unless asked."""

    def __init__(self, store: StatisticsStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._latest: Sequence[VersionStatistics] = ()
        self._seen: tuple[int, int] | None = None
        self._others_at = 0.0
        self._number = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """There will be nothing newer."""
        self._stopping.set()

    async def stopped_within(self, seconds: float) -> bool:
        """Sleep for some seconds, or until `stop`; whether it was called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def newer(self, number: int) -> tuple[int, Sequence[VersionStatistics]] | None:
        """Wait for statistics other than those of a number; they, and their number. Those of any differ from 0.

        None once `stop` was called.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        while True:
            async with self._lock:  # one looks, the others see what it found
                await self._look()
                if self._number != number:
                    return self._number, self._latest
            if await self.stopped_within(LOOK_INTERVAL_S):
                return None

    async def _look(self) -> None:
        changes = self._store.changes
        revision = self._seen[1] if self._seen else -1
        if time.monotonic() >= self._others_at:
            revision = await asyncio.to_thread(self._store.revision)
            self._others_at = time.monotonic() + OTHERS_INTERVAL_S
        if (changes, revision) == self._seen:
            return
        # whatever comes between is seen again at the next look
        latest = await asyncio.to_thread(self._store.read)
        self._seen = changes, revision
        if latest != self._latest or not self._number:
            self._latest = latest
            self._number += 1
