"""A thread that runs only while no other thread wants its CPU."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_native_id

LEAST_NICE = 19


class BackgroundThread:
    """Runs functions one after the other, at the lowest priority that the operating system has.

    On Linux that is SCHED_IDLE, sched(7): such a thread is interrupted at once when another thread wakes up on its CPU;
    the highest nice value if that is not permitted. Elsewhere it is the usual priority.
    """

    def __init__(self, name: str) -> None:
        self._functions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function, which must not raise, after those before it."""
        self._functions.put(function)

    def close(self, timeout_s: float) -> bool:
        """Stop after the functions that were submitted; return whether they have ended in time."""
        self._functions.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        lower_priority()
        while function := self._functions.get():
            function()


def lower_priority() -> None:
    """Give the calling thread the lowest priority, for good: raising it again needs a privilege."""
    if sys.platform != "linux":  # priorities of threads are a matter of Linux
        return
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, get_native_id(), LEAST_NICE)
