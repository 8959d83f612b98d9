"""Pictures in; their rows prepared, computed in engine calls of several, and told to those who wait, out.

A worker takes a picture, in an order that is fair to the callers, and prepares its rows (decode, resize, cut the
views). If it then finds an engine idle it computes them itself, and goes on until no row is left: nobody waits for a
timer, and while all engines work, rows gather. So a picture meets one thread between its arrival and its answer.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from math import ceil
from queue import Empty
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from serving.batching.affinity import CpuAffinity
from serving.batching.fair_queue import FairQueue
from serving.batching.ready_rows import MAX_GATHER_S, ReadyRows
from serving.batching.requests import BatchObserver, Job, Request, RowSlice, join_rows, to_inference_error
from serving.engine.base import Engine
from serving.engine.single_row import SingleRowEngine

MAX_GATHERED_ROWS = 16
"""How many rows a worker prepares before it computes those that it has."""
EXPIRED = "the deadline passed while the picture waited"

logger = logging.getLogger(__name__)


class _Order(Enum):
    """What a worker is told, other than to take a job."""

    COMPUTE = auto()
    """Compute rows that another worker has prepared."""
    STOP = auto()


class Workers:
    """Threads that prepare pictures and run the engines of one model.

    Of one caller, single views go before several (lanes.py).
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        count: int,
        cpus: Sequence[int],
        lone: SingleRowEngine | None,
        alone: Callable[[], bool],
        observer: BatchObserver | None,
    ) -> None:
        """Start the threads.

        Args:
            engines: instances of one model.
            count: how many threads.
            cpus: they keep to one of these each (binding.py); empty to leave them to the scheduler.
            lone: computes a row while no other is in flight; None if one of `engines` does.
            alone: whether just one row is in flight.
            observer: hears of every batch.
        """
        self.engine_calls = 0
        self._observer = observer
        self._lone = lone
        self._alone = alone
        self._max_batch_size = engines[0].max_batch_size
        # When every worker can have an engine, none is kept waiting by a worker that prepares one picture more.
        self._gathers = count <= len(engines)
        self._orders: FairQueue[Job, _Order] = FairQueue()
        self._lock = Lock()  # guards all below, and what becomes of jobs
        self._idle: list[Engine] = list(engines)
        self._ready = ReadyRows()
        self._settled: list[Request] = []  # not told yet
        self._threads = [
            Thread(
                target=self._work, args=[cpus[index % len(cpus)] if cpus else None], name=f"worker-{index}", daemon=True
            )
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queueing(self) -> bool:
        """Whether pictures wait that no worker has taken."""
        return not self._orders.empty()

    @property
    def ready_rows(self) -> int:
        """Rows that are prepared, and in no engine call yet."""
        return self._ready.rows

    def put(self, job: Job) -> None:
        """Have a picture prepared and computed; its request's future is resolved when all of the request's are."""
        self._orders.put(job, job.request.caller, job.rows, extra=job.extra)

    def close(self) -> None:
        """Compute what was put, then stop the threads."""
        for _ in self._threads:
            self._orders.signal(_Order.STOP)
        for thread in self._threads:
            thread.join()

    def _work(self, cpu: int | None) -> None:
        binding = CpuAffinity(cpu)
        while (order := self._next_order()) is not _Order.STOP:
            if isinstance(order, Job):
                binding.begin(crowded=self.queueing)
                self._gather(order)
                self._compute()
                binding.end()
            else:
                self._compute()

    def _next_order(self) -> Job | _Order:
        try:
            return self._orders.get(MAX_GATHER_S if self._ready.gathering else None)
        except Empty:
            return _Order.COMPUTE

    def _gather(self, first: Job) -> None:
        """Prepare a picture, and when many wait, a share of them."""
        with self._lock:
            gathered = self._ready.gather()
        for job in self._share(first, gathered.until):
            if self._prepare(job):
                gathered.jobs.append(job)
        with self._lock:
            self._ready.complete(gathered)

    def _share(self, first: Job, until: float) -> Iterator[Job]:
        """A picture, and more when many wait: one engine call and one wake of the event loop then serve several."""
        yield first
        rows = first.rows
        share = self._orders.qsize() // len(self._threads) if self._gathers else 0
        while share > 0 and rows < MAX_GATHERED_ROWS and time.monotonic() < until:
            try:
                order = self._orders.get_nowait()
            except Empty:
                return
            if not isinstance(order, Job):
                self._orders.signal(order)
                return
            yield order
            rows += order.rows
            share -= 1

    def _prepare(self, job: Job) -> bool:
        """Make a picture's rows; False if that gave it its outcome already."""
        try:
            if job.request.unwanted():
                raise TimeoutError(EXPIRED)
            job.prepare_began = time.monotonic()
            job.images_VHWC = job.prepare()
            job.prepare_ended = time.monotonic()
        except Exception as error:
            with self._lock:
                self._settle(job, error)
            self._tell()
            return False
        return True

    def _compute(self) -> None:
        """Compute batches until no row is ready or no engine is idle; who runs an engine looks again afterwards."""
        while True:
            with self._lock:
                batch = self._take_batch() if self._idle else []
                engine = self._idle.pop() if batch else None
                if engine and self._ready and self._idle and self._orders.empty():
                    self._orders.signal(_Order.COMPUTE)
            if engine is None:
                self._tell()
                return
            try:
                self._run(engine, batch)
            finally:
                with self._lock:
                    self._idle.append(engine)

    def _take_batch(self) -> list[RowSlice]:
        """A full batch, or fewer rows so that all idle engines share the work; with the lock held."""
        if not self._ready:
            self._ready.add_overdue()
        sharing = len(self._idle) if self._orders.empty() else 1  # with a queue, others find work there
        room = min(ceil(self._ready.rows / sharing), self._max_batch_size)
        batch, unwanted = self._ready.take(room)
        for job in unwanted:
            self._settle(job, TimeoutError(EXPIRED))
        return batch

    def _run(self, engine: Engine, batch: list[RowSlice]) -> None:
        began = time.monotonic()
        try:
            images_NHWC = join_rows(batch)
            alone = len(images_NHWC) == 1 and self._alone()
            lone = self._lone if alone else None
            probabilities_NK = lone.run(engine, images_NHWC) if lone else engine.run(images_NHWC)
        except Exception as error:
            logger.exception(
                "the engine could not compute a batch of %d rows", sum(last - first for _, first, last in batch)
            )
            with self._lock:
                for job, _, _ in batch:
                    self._settle(job, to_inference_error(error))
            self._tell()
            return
        ended = time.monotonic()
        row = 0
        with self._lock:
            self.engine_calls += 1
            if self._lone:
                self._lone.note(alone=alone and self._alone())
            for job, first, last in batch:
                if job.uncomputed == job.rows:
                    job.probabilities_VK = np.empty((job.rows, probabilities_NK.shape[1]), np.float32)
                job.probabilities_VK[first:last] = probabilities_NK[row : row + last - first]
                row += last - first
                job.uncomputed -= last - first
                if job.uncomputed == 0:
                    self._settle(job, job.probabilities_VK)
        self._tell()
        if self._observer:
            self._observer.computed(batch, began, ended)

    def _settle(self, job: Job, outcome: NDArray[np.float32] | Exception) -> None:
        """Give a job its outcome, unless it has one; with the lock held."""
        if job.outcome is None:
            job.outcome = outcome
            job.request.unsettled -= 1
            if job.request.unsettled == 0:
                self._settled.append(job.request)

    def _tell(self) -> None:
        """Tell the event loop, once for all of them, which requests have their outcomes."""
        with self._lock:
            wanted = [request.done for request in self._settled if not request.abandoned]
            self._settled.clear()
        if wanted:
            wanted[0].get_loop().call_soon_threadsafe(_resolve, wanted)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
