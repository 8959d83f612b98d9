"""A request in; a place in the queue, or a refusal before anything is begun, out.

What is refused: more than is free, more than a caller's fair share, and what would be answered after its deadline.
"""

import time

from serving.callers import Caller
from serving.fair_shares import FairShares
from serving.jobs import QueueFull

TIMELY = 0.7
"""Of the time until a deadline, how much the expected wait may take: the expectation is none too exact."""
HALF_LIFE_S = 2.0


class Admission:
    """The rows in flight, and how long they take. Only for one event loop."""

    def __init__(self, max_rows: int) -> None:
        self._shares = FairShares(max_rows)
        self._pace = Pace()
        self._recent_s = 0.0  # how long requests took lately

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return self._shares.total

    def check(self, caller: Caller, rows: int, timeout_s: float | None) -> None:
        """Check that there are places for so many rows.

        Raises:
            QueueFull: if there are too few, for all or for this caller, or the answer would come after `timeout_s`.
        """
        shares = self._shares
        if not shares.admits(caller, rows):
            raise QueueFull(
                f"{shares.total:,} rows are in flight, and this asks for {rows:,} more; {shares.limit:,} may be, of "
                "which each caller gets a fair share",
                retry_after_s=self._recent_s / 2,
            )
        if timeout_s is not None and shares.total:
            wait_s = self._pace.seconds(shares.before(caller, rows))
            if wait_s > timeout_s * TIMELY:
                raise QueueFull(
                    f"the answer would come in about {wait_s:.2g} s, and the deadline is in {timeout_s:.2g} s",
                    retry_after_s=max(wait_s - timeout_s * TIMELY, self._recent_s / 2),
                )

    def take(self, caller: Caller, rows: int) -> None:
        """Take places."""
        self._shares.take(caller, rows)

    def give_back(self, caller: Caller, rows: int) -> None:
        """Give the places back."""
        self._shares.give_back(caller, rows)

    def answered(self, rows: int, took_s: float, *, waiting: bool) -> None:
        """Note that a request was answered, how long it took, and whether others wait."""
        self._recent_s += (took_s - self._recent_s) / 8
        self._pace.answered(rows, waiting=waiting)


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
