"""CPU affinity of worker threads.

While images queue, workers that are bound to one CPU each serve more of them than workers that the scheduler moves: it
sometimes puts two on one CPU and leaves another CPU idle. Without a queue a worker is not bound, so that a single image
goes to any idle CPU. A worker also leaves its CPU for some time if another process uses it.
"""

import os
import time

from serving.system.cpus import set_thread_affinity

MIN_SHARE, USUAL_SHARE = 0.55, 0.75
"""The part of its working time that a thread gets on a CPU, as a moving average. Below the first, the thread shares its
CPU with another process; waiting for the interpreter's lock and the event loop leave it the second."""
FIRST_LEAVE_S, MAX_LEAVE_S = 1.0, 64.0
"""How long the thread then is not bound: the first time, and at most. It doubles while the CPU is still shared."""


class CpuAffinity:
    """Binds the thread that makes it to a CPU while images queue."""

    def __init__(self, cpu: int | None, least_share: float = MIN_SHARE) -> None:
        """Begin unbound; `cpu` is None for a thread that is never bound."""
        self._cpu = cpu
        self._least_share = least_share
        self._allowed = os.sched_getaffinity(0) if cpu is not None else set()
        self._bound = False
        self._share = USUAL_SHARE
        self._leave_s = FIRST_LEAVE_S
        self._unbound_until = 0.0
        self._began_s = self._ran_s = 0.0

    def begin(self, *, queueing: bool) -> None:
        """Bind or unbind before some work; `queueing` if more work waits."""
        if self._cpu is None:
            return
        self._began_s, self._ran_s = time.monotonic(), time.thread_time()
        if self._bound != (queueing and self._began_s >= self._unbound_until):
            self._bound = not self._bound
            set_thread_affinity([self._cpu] if self._bound else self._allowed)

    def end(self) -> None:
        """Measure the thread's share of its CPU after the work."""
        if not self._bound:
            return
        now = time.monotonic()
        share = (time.thread_time() - self._ran_s) / (now - self._began_s)
        self._share = (self._share + share) / 2
        if self._share < self._least_share:
            self._unbound_until = now + self._leave_s
            self._leave_s = min(2 * self._leave_s, MAX_LEAVE_S)
            self._share = self._least_share  # one measurement decides, once the thread is bound again
        elif self._share > USUAL_SHARE:
            self._leave_s = FIRST_LEAVE_S
