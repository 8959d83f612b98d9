"""Admission of requests: a bounded number of rows in flight, divided fairly between clients, and kept deadlines.

A request is rejected, before it costs anything, if it has more rows than are free or than its client's quota allows, or
if its answer would come after its deadline.

The bound counts rows, which take memory. Quotas and deadlines count estimated work, as the order of the queue does: a
client with a few large images may hold as much as one with many small ones, and delays the others no more.
"""

import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from serving.batching.quotas import Holdings, within_quota
from serving.batching.requests import QueueFull
from serving.context import INTERNAL_CLIENT, ClientIdentity


class Demand(NamedTuple):
    """What a request asks for."""

    rows: int
    work_us: int
    """Estimated time in a worker and in an engine, in microseconds; at least 1."""
    large: bool = False
    """Whether it has an image that waits in the queue of large images."""


DEADLINE_SHARE = 0.9
"""The part of the time until a deadline that may pass until the answer is ready; the rest is for its way back."""
MAX_SLOWDOWN = 1.1
"""Requests are admitted that are in time even if the pace slows down by this factor while they wait. A queue for less
than the whole time keeps the engines as busy."""
LATE_SHARE = 0.02
"""The part of recent estimates that may have been too short by more than the margin."""
REMEMBERED, REMEMBERED_S = 256, 3.0
"""Recent estimates: this many, and none older. An estimate is only known to be wrong when its request is answered, so
with a shorter memory the margin oscillates."""
HALF_LIFE_S = 2.0


class Admission:
    """The rows in flight, and estimates of how long requests take. For one event loop."""

    def __init__(self, max_rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self.max_rows = max_rows
        """Most rows in flight."""
        self.rows = 0
        """Rows in flight."""
        self._lanes = {large: _Lane(clock) for large in (False, True)}

    def enter(
        self, client: ClientIdentity, demand: Demand, timeout_s: float | None, *, admitted: bool = False
    ) -> float:
        """Admit a request.

        Args:
            timeout_s: seconds until the deadline; None for no deadline.
            admitted: this is the rest of a request that was admitted already, so it is not rejected.

        Returns:
            Estimated seconds until the answer; 0 if unknown.

        Raises:
            QueueFull: if too few rows are free, for all or for this client, or the answer would come after `timeout_s`.
        """
        lane = self._lanes[demand.large]
        expected_s = 0.0
        if not admitted:
            self._check_quota(lane, client, demand)
            if timeout_s is not None:
                expected_s = lane.pace.seconds(lane.work_us.before(client, demand.work_us))
                latest_s = expected_s * MAX_SLOWDOWN + lane.errors.most_s()
                if expected_s and lane.rows and latest_s > timeout_s * DEADLINE_SHARE:
                    raise QueueFull(
                        f"the answer would take {expected_s:.2g} to {latest_s:.2g} s; the deadline is in "
                        f"{timeout_s:.2g} s",
                        retry_after_s=max(latest_s - timeout_s * DEADLINE_SHARE, lane.recent_s / 2),
                    )
        self.rows += demand.rows
        lane.rows += demand.rows
        lane.work_us.take(client, demand.work_us)
        return expected_s

    def leave(self, client: ClientIdentity, demand: Demand) -> None:
        """Count a request as no longer in flight."""
        lane = self._lanes[demand.large]
        self.rows -= demand.rows
        lane.rows -= demand.rows
        lane.work_us.give_back(client, demand.work_us)

    def answered(self, demand: Demand, took_s: float, expected_s: float, *, waiting: bool) -> None:
        """Learn from a request that was answered.

        Args:
            took_s: seconds from its admission to its answer.
            expected_s: what `enter` returned.
            waiting: whether other images wait in the same queue.
        """
        lane = self._lanes[demand.large]
        if expected_s:
            lane.errors.add(took_s - expected_s)
        lane.recent_s += (took_s - lane.recent_s) / 8
        lane.pace.answered(demand.work_us, waiting=waiting)

    def given_up(self, demand: Demand, waited_s: float, expected_s: float) -> None:
        """Learn from a request that was cancelled, as a client does when its deadline passes."""
        if expected_s and waited_s > expected_s:
            self._lanes[demand.large].errors.add(waited_s - expected_s)

    def _check_quota(self, lane: "_Lane", client: ClientIdentity, demand: Demand) -> None:
        """Raises QueueFull."""
        rows, limit = demand.rows, self.max_rows
        if rows > limit:
            raise QueueFull(
                f"the request asks for {rows:,} views; at most {limit:,} are computed at once: send fewer images in a "
                "request, or ask for fewer views",
                retry_after_s=None,
            )
        if rows > limit - self.rows or not lane.admits(client, demand, limit=limit, free=limit - self.rows):
            raise QueueFull(
                f"{self.rows:,} views are in flight, and the request asks for {rows:,} more; at most {limit:,} are "
                "allowed, of which each client has a quota",
                retry_after_s=lane.recent_s / 2,
            )


class _Lane:
    """The requests of one of the two queues, that of large images or that of the others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.rows = 0
        self.work_us = Holdings()
        self.pace = Pace(clock)
        self.errors = EstimateErrors(clock)
        self.recent_s = 0.0
        """Moving average of the time that requests took."""

    def admits(self, client: ClientIdentity, demand: Demand, *, limit: int, free: int) -> bool:
        """Whether the client's quota allows a request.

        A client that holds half of the work counts as if it held half of the rows.
        """
        if client is INTERNAL_CLIENT:
            return True
        owner_us, connection_us = self.work_us.of(client)
        rows, work_us = self.rows + demand.rows, self.work_us.total + demand.work_us
        return within_quota(
            demand.work_us * rows / work_us,
            limit=limit,
            free=free,
            owner=owner_us * rows / work_us,
            connection=connection_us * rows / work_us,
        )


class EstimateErrors:
    """Seconds by which recent requests exceeded their estimates."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_age: deque[tuple[float, float]] = deque()  # when it was known, and by how much
        self._by_size: list[float] = []

    def add(self, seconds: float) -> None:
        """Add an error; negative if the request took less time than estimated."""
        if len(self._by_age) == REMEMBERED:
            self._forget()
        self._by_age.append((self._clock(), seconds))
        insort(self._by_size, seconds)

    def most_s(self) -> float:
        """The error that all but LATE_SHARE of recent requests did not exceed; 0 if there are none."""
        oldest = self._clock() - REMEMBERED_S
        while self._by_age and self._by_age[0][0] < oldest:
            self._forget()
        return self._by_size[int((1 - LATE_SHARE) * len(self._by_size))] if self._by_size else 0.0

    def _forget(self) -> None:
        _, seconds = self._by_age.popleft()
        del self._by_size[bisect_left(self._by_size, seconds)]


class Pace:
    """Work done per second while more waits; while none waits, the clients set the pace and nothing is learned."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0  # both decay, so that their ratio is that of the last seconds
        self._work_us = 0.0
        self._last: float | None = None

    def answered(self, work_us: int, *, waiting: bool) -> None:
        """Count work as done now; `waiting` if more waits."""
        now = self._clock()
        if self._last is not None:
            decay = 0.5 ** ((now - self._last) / HALF_LIFE_S)
            self._seconds = self._seconds * decay + now - self._last
            self._work_us = self._work_us * decay + work_us
        self._last = now if waiting else None

    def seconds(self, work_us: int) -> float:
        """Estimated seconds for so much work; 0 if unknown."""
        return work_us * self._seconds / self._work_us if self._work_us else 0.0
