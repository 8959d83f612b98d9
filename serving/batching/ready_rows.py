"""Prepared pictures in; the rows of the next engine call out, in an order that is fair to their callers."""

import time
from collections import deque

from serving.batching.fair_queue import FairOrder
from serving.batching.requests import Job, RowSlice

MAX_GATHER_S = 0.02
"""How long a worker may keep what it has prepared, while it prepares more."""


class PreparedShare:
    """What one worker has prepared, and keeps until it has its share."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.until = time.monotonic() + MAX_GATHER_S


class ReadyRows:
    """Rows that no engine call has begun with. Not for several threads at once, but for `PreparedShare.jobs.append`."""

    def __init__(self) -> None:
        self.rows = 0
        self._order: FairOrder[Job] = FairOrder()
        self._gathered: set[PreparedShare] = set()

    def __bool__(self) -> bool:
        return bool(self._order)

    @property
    def gathering(self) -> bool:
        """Whether some worker keeps what it has prepared."""
        return bool(self._gathered)

    def gather(self) -> PreparedShare:
        """Begin with a worker's share, whose pictures come when it is complete, or when it has taken too long."""
        gathered = PreparedShare()
        self._gathered.add(gathered)
        return gathered

    def complete(self, gathered: PreparedShare) -> None:
        """Add what a worker has prepared."""
        self._gathered.remove(gathered)
        self._offer(gathered)

    def add_overdue(self) -> None:
        """Add what workers have that have been preparing one more picture for too long."""
        for gathered in self._gathered:
            if time.monotonic() > gathered.until:
                self._offer(gathered)

    def take(self, most: int) -> tuple[list[RowSlice], list[Job]]:
        """Take at most so many rows, those that have been ready longest.

        Returns:
            The rows, and the pictures that nobody waits for any more.
        """
        batch: list[RowSlice] = []
        unwanted: list[Job] = []
        while self._order and most:
            job = self._order.peek()
            if expired := job.request.unwanted():
                unwanted.append(job)
            wanted = not expired and job.outcome is None
            first = job.taken
            job.taken = min(first + most, job.rows) if wanted else job.rows
            self.rows -= job.taken - first
            if wanted:
                batch.append((job, first, job.taken))
                most -= job.taken - first
            if job.taken == job.rows:
                self._order.take()
        return batch, unwanted

    def _offer(self, gathered: PreparedShare) -> None:
        while gathered.jobs:  # its worker may add more at any time
            job = gathered.jobs.popleft()
            self._order.put(job, job.request.caller, job.rows, extra=job.extra)
            self.rows += job.rows
