"""A feed of the statistics for clients that watch them: read again only after a change, once for all clients."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from serving.statistics.store import StatisticsStore, VersionStatistics

CHECK_INTERVAL_S = 0.1
"""How often to check whether this process has counted or written something."""
DATABASE_INTERVAL_S = 1.0
"""How often to ask the database whether other processes have written to it."""


class StatisticsFeed:
    """The statistics of all versions, shared by the clients that watch them. For one event loop.

    It reads the database only while a client waits.
    """

    def __init__(self, store: StatisticsStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._latest: Sequence[VersionStatistics] = ()
        self._seen: tuple[int, int] | None = None
        self._ask_database_at = 0.0
        self._number = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all waits; there will be no newer statistics."""
        self._stopping.set()

    async def stopped_within(self, seconds: float) -> bool:
        """Sleep for some seconds or until `stop`; return whether it was called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def newer(self, number: int) -> tuple[int, Sequence[VersionStatistics]] | None:
        """Wait for statistics with another number than the given one.

        Args:
            number: of the statistics that the client has; 0 for none.

        Returns:
            The number and the statistics; None once `stop` was called.

        Raises:
            StatisticsUnavailable: if the database cannot be read.
        """
        while True:
            async with self._lock:  # one client updates, the others find the result
                await self._update()
                if self._number != number:
                    return self._number, self._latest
            if await self.stopped_within(CHECK_INTERVAL_S):
                return None

    async def _update(self) -> None:
        changes = self._store.changes
        revision = self._seen[1] if self._seen else -1
        if time.monotonic() >= self._ask_database_at:
            revision = await asyncio.to_thread(self._store.revision)
            self._ask_database_at = time.monotonic() + DATABASE_INTERVAL_S
        if (changes, revision) == self._seen:
            return
        # a change after these numbers were read is seen at the next check
        latest = await asyncio.to_thread(self._store.read)
        self._seen = changes, revision
        if latest != self._latest or not self._number:
            self._latest = latest
            self._number += 1
