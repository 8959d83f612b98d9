"""Admission of requests: a bounded number of rows in flight, divided fairly between clients, and kept deadlines.

A request is refused, before it costs anything, if it has more rows than are free or than its client's quota allows, or
if its answer would come after its deadline.

A client may hold at most four times what is free ("dynamic thresholds": Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998), and each of its connections at most four times what is free of that. So one client gets at most
about 80% of the whole, several divide it evenly, and a new client always finds some free.
"""

import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

from serving.batching.requests import QueueFull
from serving.context import INTERNAL_CLIENT, ClientIdentity

MAX_MULTIPLE_OF_FREE = 4
"""A client may hold this many times what is free."""


class Quotas:
    """A limited amount of something, divided between clients. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        """The amount that all clients hold."""
        self._owners: dict[str, dict[str, int]] = {}  # owner -> connection -> amount

    def admits(self, client: ClientIdentity, amount: int) -> bool:
        """Whether the client may take this much more. INTERNAL_CLIENT, this process itself, may take all."""
        if self.total + amount > self.limit:
            return False
        if client is INTERNAL_CLIENT:
            return True
        connections = self._owners.get(client.owner)
        if connections is None:
            return amount <= MAX_MULTIPLE_OF_FREE * (self.limit - self.total)
        held = sum(connections.values())
        allowed = min(self.limit, MAX_MULTIPLE_OF_FREE * (self.limit - self.total))
        free = allowed - held
        return amount <= free and connections.get(client.connection, 0) + amount <= MAX_MULTIPLE_OF_FREE * free

    def take(self, client: ClientIdentity, amount: int) -> None:
        """Count an amount, at least 0, as held by the client."""
        if not amount:
            return
        connections = self._owners.setdefault(client.owner, {})
        connections[client.connection] = connections.get(client.connection, 0) + amount
        self.total += amount

    def give_back(self, client: ClientIdentity, amount: int) -> None:
        """Count an amount, at least 0, as no longer held by the client."""
        if not amount:
            return
        connections = self._owners[client.owner]
        connections[client.connection] -= amount
        self.total -= amount
        if not connections[client.connection]:
            del connections[client.connection]
            if not connections:
                del self._owners[client.owner]

    def before(self, client: ClientIdentity, amount: int) -> int:
        """The amount of all clients that is served, in fair order, until this client has got `amount` more.

        Until a connection is served, each other client is served at most as much as the connection's client.
        """
        connections = self._owners.get(client.owner, {})
        own = connections.get(client.connection, 0) + amount
        turn = own * (len(connections) + (client.connection not in connections))
        others = sum(min(sum(held.values()), turn) for owner, held in self._owners.items() if owner != client.owner)
        return others + min(sum(connections.values()) + amount, turn)


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
        self._quotas = Quotas(max_rows)
        self._pace = Pace(clock)
        self._recent_s = 0.0  # moving average of the time that requests took
        self._errors = EstimateErrors(clock)

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return self._quotas.total

    @property
    def max_rows(self) -> int:
        """Most rows in flight."""
        return self._quotas.limit

    def enter(self, client: ClientIdentity, rows: int, timeout_s: float | None, *, admitted: bool = False) -> float:
        """Admit rows.

        Args:
            timeout_s: seconds until the deadline; None for no deadline.
            admitted: the rows belong to a request that was admitted already, so they are not refused.

        Returns:
            Estimated seconds until the answer; 0 if unknown.

        Raises:
            QueueFull: if too few rows are free, for all or for this client, or the answer would come after `timeout_s`.
        """
        quotas = self._quotas
        expected_s = 0.0
        if not admitted and rows > quotas.limit:
            raise QueueFull(
                f"the request asks for {rows:,} views; at most {quotas.limit:,} are computed at once: send fewer "
                "images in a request, or ask for fewer views",
                retry_after_s=None,
            )
        if not admitted and not quotas.admits(client, rows):
            raise QueueFull(
                f"{quotas.total:,} views are in flight, and the request asks for {rows:,} more; at most "
                f"{quotas.limit:,} are allowed, of which each client has a quota",
                retry_after_s=self._recent_s / 2,
            )
        if not admitted and timeout_s is not None:
            expected_s = self._pace.seconds(quotas.before(client, rows))
            latest_s = expected_s * MAX_SLOWDOWN + self._errors.most_s()
            if expected_s and quotas.total and latest_s > timeout_s * DEADLINE_SHARE:
                raise QueueFull(
                    f"the answer would take {expected_s:.2g} to {latest_s:.2g} s; the deadline is in {timeout_s:.2g} s",
                    retry_after_s=max(latest_s - timeout_s * DEADLINE_SHARE, self._recent_s / 2),
                )
        quotas.take(client, rows)
        return expected_s

    def leave(self, client: ClientIdentity, rows: int) -> None:
        """Count rows as no longer in flight."""
        self._quotas.give_back(client, rows)

    def answered(self, rows: int, took_s: float, expected_s: float, *, waiting: bool) -> None:
        """Learn from a request that was answered.

        Args:
            took_s: seconds from its admission to its answer.
            expected_s: what `enter` returned.
            waiting: whether other images wait for a worker.
        """
        if expected_s:
            self._errors.add(took_s - expected_s)
        self._recent_s += (took_s - self._recent_s) / 8
        self._pace.answered(rows, waiting=waiting)

    def given_up(self, waited_s: float, expected_s: float) -> None:
        """Learn from a request that was cancelled, as a client does when its deadline passes."""
        if expected_s and waited_s > expected_s:
            self._errors.add(waited_s - expected_s)


class EstimateErrors:
    """By how much recent requests took longer than estimated."""

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
    """Rows answered per second while others wait; while none waits, the clients set the pace and nothing is learned."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0  # both decay, so that their ratio is that of the last seconds
        self._rows = 0.0
        self._last: float | None = None

    def answered(self, rows: int, *, waiting: bool) -> None:
        """Count rows as answered now; `waiting` if others wait."""
        now = self._clock()
        if self._last is not None:
            decay = 0.5 ** ((now - self._last) / HALF_LIFE_S)
            self._seconds = self._seconds * decay + now - self._last
            self._rows = self._rows * decay + rows
        self._last = now if waiting else None

    def seconds(self, rows: int) -> float:
        """Estimated seconds for so many rows; 0 if unknown."""
        return rows * self._seconds / self._rows if self._rows else 0.0
