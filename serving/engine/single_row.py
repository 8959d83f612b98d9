"""A row that has its model to itself in; its probabilities, from several CPUs where that is faster than from one, out.

Instances of one thread each serve most rows a second, and leave a row that comes alone to one CPU while the others are
idle. So one instance more spreads such a row over the CPUs. Its threads have a CPU each: on virtual machines in
particular, a scheduler that moves them as it likes puts two of them on one CPU, and each waits for the other.

Whether it is faster depends on what else the machine does meanwhile, so both ways are timed all the time. And it takes
more CPU time in all, which is missed by rows that come in the middle of it: so rows are spread only while they come one
by one, each after the answer to the one before it.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from statistics import median
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from serving.engine.base import Engine
from serving.system.cpus import set_thread_affinity

REMEMBERED = 5
"""How many rows of each way are remembered; their medians are compared."""
ONE_BY_ONE = 2
"""Rows come one by one if so many in turn had no company."""
EXPLORED = 16
"""One row of so many goes the way that was slower, to see whether it still is."""


class SingleRowEngine:
    """Computes rows that come alone. For any number of threads; whoever comes second goes the usual way."""

    def __init__(self, engine: Engine, cpus: Sequence[int]) -> None:
        """Use an engine of several threads.

        Args:
            engine: computes one row at a time.
            cpus: those that its threads are bound to, first the one that is meant for the thread that calls it; empty
                if they are not.
        """
        self._engine = engine
        self._cpus = set(cpus[:1])
        self._free = Lock()
        self._seconds = {True: deque[float](maxlen=REMEMBERED), False: deque[float](maxlen=REMEMBERED)}
        self._rows = 0
        self._in_turn = 0  # rows that had no company

    def note(self, *, alone: bool) -> None:
        """Hear of each engine call: whether it computed one row, and no other was in flight, from its beginning to its
        end. From one thread at a time."""
        self._in_turn = self._in_turn + 1 if alone else 0

    def run(self, usual: Engine, images_1HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one row, in the faster of this engine and a `usual` one; arrays and errors as of Engine.run."""
        if not self._free.acquire(blocking=False):  # it works for somebody who has left meanwhile
            return usual.run(images_1HWC)
        try:
            spread = self._choose()
            began = time.perf_counter()
            probabilities_1K = self._run_bound(images_1HWC) if spread else usual.run(images_1HWC)
            self._seconds[spread].append(time.perf_counter() - began)
        finally:
            self._free.release()
        return probabilities_1K

    def _choose(self) -> bool:
        if self._in_turn < ONE_BY_ONE:
            return False
        self._rows += 1
        spread, usual = (median(self._seconds[way] or [0.0]) for way in (True, False))  # what is not known is tried
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
