"""Single requests computed on several CPUs, where that is faster than on one.

Instances of one thread each serve most images per second, but they compute a single request on one CPU while the others
are idle. So one more instance spreads such a row over the CPUs. Its threads are bound to one CPU each: a scheduler,
that of virtual machines in particular, otherwise puts two of them on one CPU, where each waits for the other.

Which way is faster depends on what else the machine does, so both are timed continuously. Spreading takes more CPU time
in total, which delays rows that arrive meanwhile. So rows are spread only while they come one by one, each after the
answer to the one before.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from serving.engine.base import Engine
from serving.system.cpus import set_thread_affinity

REMEMBERED = 5
"""Times of each way whose medians are compared."""
ONE_BY_ONE = 2
"""Consecutive rows without another row in flight after which rows are spread."""
EXPLORED = 16
"""One row in so many is computed the slower way, to see whether it still is slower."""


class SpreadEngine:
    """An engine of several threads for one row at a time, and the times of both ways. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        cpus: Sequence[int],
        rows_in_flight: Callable[[], int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begin with nothing measured.

        Args:
            engine: computes one row at a time, with several threads.
            cpus: the CPUs that its threads are bound to; the first is for the thread that calls `run`. Empty if they
                are not bound.
            rows_in_flight: returns the number of rows that are admitted and not answered.
            clock: returns seconds.
        """
        self._engine = engine
        self._cpus = set(cpus[:1])
        self._rows_in_flight = rows_in_flight
        self._clock = clock
        self._free = Lock()
        self._seconds = {True: deque[float](maxlen=REMEMBERED), False: deque[float](maxlen=REMEMBERED)}
        self._rows = 0
        self._consecutive = 0  # rows that had no other row in flight, from beginning to end

    def run(self, usual: Engine, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute a batch with a `usual` engine, or with this one if that is faster; see Engine.run."""
        single = len(images_NHWC) == 1 and self._rows_in_flight() == 1
        probabilities_NK = self._run_single(usual, images_NHWC) if single else usual.run(images_NHWC)
        self._consecutive = self._consecutive + 1 if single and self._rows_in_flight() == 1 else 0
        return probabilities_NK

    def close(self) -> None:
        """Close the engine of several threads."""
        self._engine.close()

    def _run_single(self, usual: Engine, images_1HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not self._free.acquire(blocking=False):  # it computes a row of a cancelled request
            return usual.run(images_1HWC)
        try:
            spread = self._choose()
            began = self._clock()
            probabilities_1K = self._run_bound(images_1HWC) if spread else usual.run(images_1HWC)
            self._seconds[spread].append(self._clock() - began)
        finally:
            self._free.release()
        return probabilities_1K

    def _choose(self) -> bool:
        """Whether to spread the next row."""
        if self._consecutive < ONE_BY_ONE:
            return False
        self._rows += 1
        spread, usual = (median(self._seconds[way] or [0.0]) for way in (True, False))  # an unknown way is tried
        return (spread <= usual) != (self._rows % EXPLORED == 0)

    def _run_bound(self, images_1HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not self._cpus:
            return self._engine.run(images_1HWC)
        allowed = os.sched_getaffinity(0)  # of this thread
        set_thread_affinity(self._cpus)
        try:
            return self._engine.run(images_1HWC)
        finally:
            set_thread_affinity(allowed)


class SingleRowEngine:
    """One instance of a model, which computes single requests on several CPUs when that is faster.

    All instances of a model share one `SpreadEngine`.
    """

    def __init__(self, usual: Engine, spread: SpreadEngine) -> None:
        self._usual = usual
        self._spread = spread
        self.max_batch_size = usual.max_batch_size

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch; see Engine.run."""
        return self._spread.run(self._usual, images_NHWC)

    def close(self) -> None:
        """Close this instance and the shared one."""
        self._usual.close()
        self._spread.close()
