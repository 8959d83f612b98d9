"""How much there is to do in; whether a worker's thread keeps to its CPU out.

While pictures queue, workers that keep to a CPU each serve more of them than those that a scheduler moves about: it
puts two on one CPU now and then, and leaves another one idle. A picture that comes alone had better go to whatever CPU
is free, and a CPU that another process uses is no good place to stay.
"""

import os
import time

from serving.system.cpus import set_thread_affinity

LEAST_SHARE, USUAL_SHARE = 0.55, 0.75
"""How long a thread runs of the time that its work takes, on average over the last few times: with less than the first,
it shares its CPU with another process; waiting for the interpreter and for the event loop leave it the second."""
FIRST_LEAVE_S, LONGEST_LEAVE_S = 1.0, 64.0
"""For how long the thread then goes where it likes: at first, and if the CPU is still shared whenever it is back."""


class CpuAffinity:
    """The CPU of one worker. For the thread that it is made in."""

    def __init__(self, cpu: int | None) -> None:
        """Begin unbound; None for a thread that always is."""
        self._cpu = cpu
        self._everywhere = os.sched_getaffinity(0) if cpu is not None else set()
        self._bound = False
        self._share = USUAL_SHARE
        self._leave_s = FIRST_LEAVE_S
        self._left_until = 0.0
        self._began_s = self._ran_s = 0.0

    def begin(self, *, crowded: bool) -> None:
        """Before some work: `crowded` if more of it waits."""
        if self._cpu is None:
            return
        self._began_s, self._ran_s = time.monotonic(), time.thread_time()
        if self._bound != (crowded and self._began_s >= self._left_until):
            self._bound = not self._bound
            set_thread_affinity([self._cpu] if self._bound else self._everywhere)

    def end(self) -> None:
        """After it."""
        if not self._bound:
            return
        now = time.monotonic()
        share = (time.thread_time() - self._ran_s) / (now - self._began_s)
        self._share = (self._share + share) / 2
        if self._share < LEAST_SHARE:
            self._left_until = now + self._leave_s
            self._leave_s = min(2 * self._leave_s, LONGEST_LEAVE_S)
            self._share = LEAST_SHARE  # one turn will tell
        elif self._share > USUAL_SHARE:
            self._leave_s = FIRST_LEAVE_S
