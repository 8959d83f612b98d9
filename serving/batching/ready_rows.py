"""Prepared images whose rows wait for an engine, in an order that is fair to their clients."""

import time
from collections import deque

from serving.batching.fair_queue import FairOrder
from serving.batching.requests import Job, RowSlice


class PreparedShare:
    """The images that one worker has prepared, and keeps until its share is complete."""

    def __init__(self, until: float) -> None:
        self.jobs: deque[Job] = deque()
        self.until = until
        """The time of time.monotonic() when it is overdue."""


class ReadyRows:
    """Rows that are in no engine call yet. Not thread-safe, apart from `PreparedShare.jobs.append`."""

    def __init__(self, max_gather_s: float) -> None:
        """`max_gather_s` is how long a worker may keep the images that it has prepared while it prepares more."""
        self._max_gather_s = max_gather_s
        self.rows = 0
        self._order: FairOrder[Job] = FairOrder()
        self._shares: set[PreparedShare] = set()

    def __bool__(self) -> bool:
        return bool(self._order)

    @property
    def gathering(self) -> bool:
        """Whether a worker keeps prepared images."""
        return bool(self._shares)

    def begin_share(self) -> PreparedShare:
        """Begin a worker's share; its images are added when it is complete or overdue."""
        share = PreparedShare(time.monotonic() + self._max_gather_s)
        self._shares.add(share)
        return share

    def complete(self, share: PreparedShare) -> None:
        """Add the images of a worker's share."""
        self._shares.remove(share)
        self._add(share)

    def add_overdue(self) -> None:
        """Add the images of shares that are overdue."""
        for share in self._shares:
            if time.monotonic() > share.until:
                self._add(share)

    def add(self, job: Job) -> None:
        """Add the rows of an image that was prepared."""
        self._order.put(job, job.request.client, job.rows, extra=job.extra)
        self.rows += job.rows

    def take(self, most: int) -> tuple[list[RowSlice], list[Job]]:
        """Take at most so many rows, those that have been ready longest.

        Returns:
            The rows, and the images that are no longer needed.
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

    def _add(self, share: PreparedShare) -> None:
        while share.jobs:  # its worker may append more at any time
            self.add(share.jobs.popleft())
