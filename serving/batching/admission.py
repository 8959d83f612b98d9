"""A bounded amount of something, shared between callers: who may take how much of it.

A caller may hold at most four times what is free ("dynamic thresholds": Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998), and each of its connections at most four times what is free of that. So one greedy caller gets
up to about 80% of the whole, several divide it evenly, and there is room for one who comes anew. Only one thread may
use these.

A request in; a place in the queue, or a refusal before anything is begun, out.

What is refused: more than is free, more than a caller's fair share, and what would be answered after its deadline.
"""

import time
from bisect import bisect_left, insort
from collections import deque

from serving.batching.requests import QueueFull
from serving.context import INTERNAL_CLIENT, ClientIdentity

GREED = 4
"""How many times what is free a caller may hold."""


class Quotas:
    """So much of something, and who holds how much of it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        """How much is taken."""
        self._owners: dict[str, dict[str, int]] = {}  # owner -> connection -> amount

    def admits(self, caller: ClientIdentity, amount: int) -> bool:
        """Whether the caller may take so much more. This process itself, which measures, may take all."""
        if self.total + amount > self.limit:
            return False
        if caller is INTERNAL_CLIENT:
            return True
        connections = self._owners.get(caller.owner)
        if connections is None:
            return amount <= GREED * (self.limit - self.total)
        held = sum(connections.values())
        allowed = min(self.limit, GREED * (self.limit - self.total))
        return held + amount <= allowed and connections.get(caller.connection, 0) + amount <= GREED * (allowed - held)

    def take(self, caller: ClientIdentity, amount: int) -> None:
        """Note that the caller took so much, at least 0."""
        if not amount:
            return
        connections = self._owners.setdefault(caller.owner, {})
        connections[caller.connection] = connections.get(caller.connection, 0) + amount
        self.total += amount

    def give_back(self, caller: ClientIdentity, amount: int) -> None:
        """Note that the caller gave so much back, at least 0."""
        if not amount:
            return
        connections = self._owners[caller.owner]
        connections[caller.connection] -= amount
        self.total -= amount
        if not connections[caller.connection]:
            del connections[caller.connection]
            if not connections:
                del self._owners[caller.owner]

    def before(self, caller: ClientIdentity, amount: int) -> int:
        """How much is served, in fair order, until the caller has got so much more: others' and its own.

        Until its connection is served, of each caller at most as much is served as of its own.
        """
        connections = self._owners.get(caller.owner, {})
        own = connections.get(caller.connection, 0) + amount
        turn = own * (len(connections) + (caller.connection not in connections))
        others = sum(min(sum(held.values()), turn) for owner, held in self._owners.items() if owner != caller.owner)
        return others + min(sum(connections.values()) + amount, turn)


TIMELY = 0.9
"""Of the time until a deadline, how much may pass until the answer is ready: it has to travel."""
SLOWER = 1.1
"""By how much the pace may slow down while a request waits, and its answer still be in time. A queue for less than the
whole time keeps the engines as busy."""
LATE_SHARE = 0.02
"""How many of the last expectations may have been off by more than is allowed for."""
LEARNED_FROM, LEARNED_FROM_S = 256, 3.0
"""The last expectations: so many, and no older ones. What is learned comes late, when the request is answered: who
forgets sooner than that grows bold and careful by turns."""
HALF_LIFE_S = 2.0


class Admission:
    """The rows in flight, and how long they take. Only for one event loop."""

    def __init__(self, max_rows: int) -> None:
        self._shares = Quotas(max_rows)
        self._pace = Pace()
        self._recent_s = 0.0  # how long requests took lately
        self._errors = Errors()

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return self._shares.total

    def enter(self, caller: ClientIdentity, rows: int, timeout_s: float | None, *, admitted: bool = False) -> float:
        """Take places for so many rows; refused nothing if they belong to a request that is `admitted` already.

        Returns:
            About how long the answer will take, in seconds; 0 while that is not known.

        Raises:
            QueueFull: if there are too few, for all or for this caller, or the answer would come after `timeout_s`.
        """
        shares = self._shares
        expected_s = 0.0
        if not admitted and rows > shares.limit:
            raise QueueFull(
                f"the request asks for {rows:,} views; at most {shares.limit:,} are computed at once: send fewer "
                "pictures in a request, or ask for fewer views",
                retry_after_s=None,
            )
        if not admitted and not shares.admits(caller, rows):
            raise QueueFull(
                f"{shares.total:,} rows are in flight, and this asks for {rows:,} more; {shares.limit:,} may be, of "
                "which each caller gets a fair share",
                retry_after_s=self._recent_s / 2,
            )
        if not admitted and timeout_s is not None:
            expected_s = self._pace.seconds(shares.before(caller, rows))
            latest_s = expected_s * SLOWER + self._errors.most_s()
            if expected_s and shares.total and latest_s > timeout_s * TIMELY:
                raise QueueFull(
                    f"the answer would take {expected_s:.2g} to {latest_s:.2g} s; the deadline is in {timeout_s:.2g} s",
                    retry_after_s=max(latest_s - timeout_s * TIMELY, self._recent_s / 2),
                )
        shares.take(caller, rows)
        return expected_s

    def leave(self, caller: ClientIdentity, rows: int) -> None:
        """Give the places back."""
        self._shares.give_back(caller, rows)

    def answered(self, rows: int, took_s: float, expected_s: float, *, waiting: bool) -> None:
        """Note that a request was answered, how long it took, what `check` had expected, and whether others wait."""
        if expected_s:
            self._errors.add(took_s - expected_s)
        self._recent_s += (took_s - self._recent_s) / 8
        self._pace.answered(rows, waiting=waiting)

    def given_up(self, waited_s: float, expected_s: float) -> None:
        """Note that a caller went, as one does whose deadline passed, and how long it had waited."""
        if expected_s and waited_s > expected_s:
            self._errors.add(waited_s - expected_s)


class Errors:
    """How far expectations were off lately."""

    def __init__(self) -> None:
        self._by_age: deque[tuple[float, float]] = deque()  # when it was known, and by how much
        self._by_size: list[float] = []

    def add(self, seconds: float) -> None:
        """Note that something took so much longer than expected; negative if shorter."""
        if len(self._by_age) == LEARNED_FROM:
            self._forget()
        self._by_age.append((time.monotonic(), seconds))
        insort(self._by_size, seconds)

    def most_s(self) -> float:
        """What all but LATE_SHARE of them did not exceed; 0 if nothing is known."""
        oldest = time.monotonic() - LEARNED_FROM_S
        while self._by_age and self._by_age[0][0] < oldest:
            self._forget()
        return self._by_size[int((1 - LATE_SHARE) * len(self._by_size))] if self._by_size else 0.0

    def _forget(self) -> None:
        _, seconds = self._by_age.popleft()
        del self._by_size[bisect_left(self._by_size, seconds)]


class Pace:
    """How fast rows are answered, learned while some wait: with none waiting, the callers set the pace."""

    def __init__(self) -> None:
        self._seconds = 0.0  # both fade, so that their ratio is that of the last seconds
        self._rows = 0.0
        self._last: float | None = None

    def answered(self, rows: int, *, waiting: bool) -> None:
        """Note that so many rows were answered now, and whether others wait."""
        now = time.monotonic()
        if self._last is not None:
            fade = 0.5 ** ((now - self._last) / HALF_LIFE_S)
            self._seconds = self._seconds * fade + now - self._last
            self._rows = self._rows * fade + rows
        self._last = now if waiting else None

    def seconds(self, rows: int) -> float:
        """About how long so many rows take; 0 while that is not known."""
        return rows * self._seconds / self._rows if self._rows else 0.0
