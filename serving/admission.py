"""A request in; a place in the queue, or a refusal before anything is begun, out.

What is refused: more than is free, more than a caller's fair share, and what would be answered after its deadline.
"""

import time

from serving.callers import Caller
from serving.fair_shares import FairShares
from serving.jobs import QueueFull

TIMELY = 0.9
"""Of the time until a deadline, how much may pass until the answer is ready: it has to travel."""
HALF_LIFE_S = 2.0


class Admission:
    """The rows in flight, and how long they take. Only for one event loop."""

    def __init__(self, max_rows: int) -> None:
        self._shares = FairShares(max_rows)
        self._pace = Pace()
        self._recent_s = 0.0  # how long requests took lately
        # How far expectations were off lately, and how much that varied: as TCP learns its timer (Jacobson, "Congestion
        # avoidance and control", SIGCOMM 1988).
        self._error_s = 0.0
        self._spread_s = 0.0

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return self._shares.total

    def enter(self, caller: Caller, rows: int, timeout_s: float | None, *, admitted: bool = False) -> float:
        """Take places for so many rows; refused nothing if they belong to a request that is `admitted` already.

        Returns:
            About how long the answer will take, in seconds; 0 while that is not known.

        Raises:
            QueueFull: if there are too few, for all or for this caller, or the answer would come after `timeout_s`.
        """
        shares = self._shares
        expected_s = 0.0
        if not admitted and not shares.admits(caller, rows):
            raise QueueFull(
                f"{shares.total:,} rows are in flight, and this asks for {rows:,} more; {shares.limit:,} may be, of "
                "which each caller gets a fair share",
                retry_after_s=self._recent_s / 2,
            )
        if not admitted and timeout_s is not None:
            expected_s = self._pace.seconds(shares.before(caller, rows))
            latest_s = expected_s + self._error_s + 4 * self._spread_s
            if expected_s and shares.total and latest_s > timeout_s * TIMELY:
                raise QueueFull(
                    f"the answer would take {expected_s:.2g} to {latest_s:.2g} s; the deadline is in {timeout_s:.2g} s",
                    retry_after_s=max(latest_s - timeout_s * TIMELY, self._recent_s / 2),
                )
        shares.take(caller, rows)
        return expected_s

    def leave(self, caller: Caller, rows: int) -> None:
        """Give the places back."""
        self._shares.give_back(caller, rows)

    def answered(self, rows: int, took_s: float, expected_s: float, *, waiting: bool) -> None:
        """Note that a request was answered, how long it took, what `check` had expected, and whether others wait."""
        if expected_s:
            self._learn(took_s - expected_s)
        self._recent_s += (took_s - self._recent_s) / 8
        self._pace.answered(rows, waiting=waiting)

    def given_up(self, waited_s: float, expected_s: float) -> None:
        """Note that a caller went, as one does whose deadline passed, and how long it had waited."""
        if expected_s and waited_s > expected_s:
            self._learn(waited_s - expected_s)

    def _learn(self, off_s: float) -> None:
        error_s = off_s - self._error_s
        self._error_s += error_s / 8
        self._spread_s += (abs(error_s) - self._spread_s) / 4


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
