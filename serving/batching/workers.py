"""Worker threads that prepare images, run the engines, and deliver the results to the event loop.

A worker takes an image, in an order that is fair to the clients, and prepares its rows (decode, resize, cut the views).
If an engine is idle then, the worker computes the rows, and goes on until no row is left. No timer delays a row: rows
gather only while all engines are busy. One thread handles an image between its arrival and its answer.

Large images, which take long to decode, have a queue and threads of their own, so that they occupy no worker of the
others, whatever the number of CPUs. The operating system divides the CPUs between both kinds of threads.

No exception ends a worker: the images that it concerns fail, and the worker goes on.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import ceil
from queue import Empty
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from serving.batching.affinity import MIN_SHARE, CpuAffinity
from serving.batching.fair_queue import FairQueue
from serving.batching.ready_rows import ReadyRows
from serving.batching.requests import (
    EXPIRED,
    BatchObserver,
    Job,
    Request,
    RowSlice,
    complete,
    join_rows,
    store_rows,
    to_inference_error,
)
from serving.engine.base import DeviceLost, Engine

FIRST_ROW_S = 0.005
"""Assumed time of a row in an engine, until there are measurements."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How many threads prepare images and run engines, and where."""

    count: int
    """Threads."""
    cpus: Sequence[int] = ()
    """Each worker is bound to one of these (affinity.py); empty for no binding."""
    max_gathered_rows: int = 16
    """Rows that a worker prepares at most before it computes those that it has."""
    max_gather_s: float = 0.02
    """How long a worker may keep the rows that it has prepared while it prepares more."""
    least_cpu_share: float = MIN_SHARE
    """A bound worker that gets less than this part of its CPU leaves it for a while."""


class _Order(Enum):
    """An instruction to a worker, other than to take a job."""

    COMPUTE = auto()
    """Compute rows that another worker has prepared."""
    STOP = auto()


class Workers:
    """Threads that prepare images and run the engines of one model."""

    def __init__(
        self,
        engines: Sequence[Engine],
        options: WorkerOptions,
        observer: BatchObserver | None,
        on_device_lost: Callable[[str], None] | None = None,
    ) -> None:
        """Start the threads.

        Args:
            engines: instances of one model.
            observer: is notified of every batch.
            on_device_lost: is called with the reason, in a worker thread, if an engine raises DeviceLost.
        """
        self.engine_calls = 0
        self.failures = 0
        """Exceptions that neither an engine nor the preparation of an image raised."""
        self._on_device_lost = on_device_lost
        self._observer = observer
        self._max_batch_size = engines[0].max_batch_size
        self._max_gathered_rows = options.max_gathered_rows
        self._max_gather_s = options.max_gather_s
        self._least_cpu_share = options.least_cpu_share
        # If each worker can have an engine, no worker waits for rows that another one keeps while it prepares more.
        self._gathers = options.count <= len(engines)
        self.row_s = FIRST_ROW_S
        """Moving average of a row's time in an engine, in seconds."""
        self._orders: FairQueue[Job, _Order] = FairQueue()
        self._large_orders: FairQueue[Job, _Order] = FairQueue()
        self._lock = Lock()  # guards all below, and the outcomes of jobs
        self._idle: list[Engine] = list(engines)
        self._ready = ReadyRows(options.max_gather_s)
        self._settled: list[Request] = []  # not delivered yet
        cpus: Sequence[int | None] = options.cpus or [None]
        self._threads = [
            Thread(target=self._work, args=[cpus[index % len(cpus)]], name=f"worker-{index}", daemon=True)
            for index in range(options.count)
        ]
        self._large_threads = [
            Thread(target=self._work_on_large, name=f"large-{index}", daemon=True)
            for index in range(max(1, options.count // 2))
        ]
        for thread in (*self._threads, *self._large_threads):
            thread.start()

    def queueing(self, *, large: bool = False) -> bool:
        """Whether images wait for a worker; with `large`, for one of those for large images."""
        return not (self._large_orders if large else self._orders).empty()

    @property
    def ready_rows(self) -> int:
        """Rows that are prepared and wait for an engine."""
        return self._ready.rows

    def put(self, job: Job) -> None:
        """Have an image prepared and computed; its request's future is resolved with the last of the request's."""
        orders = self._large_orders if job.large else self._orders
        orders.put(job, job.request.client, job.work_us, extra=job.extra)

    def close(self) -> None:
        """Compute what is queued, then stop the threads."""
        for orders, threads in ((self._large_orders, self._large_threads), (self._orders, self._threads)):
            for _ in threads:
                orders.signal(_Order.STOP)
            for thread in threads:
                thread.join()

    def _work(self, cpu: int | None) -> None:
        affinity = CpuAffinity(cpu, self._least_cpu_share)
        while (order := self._next_order()) is not _Order.STOP:
            try:
                if isinstance(order, Job):
                    affinity.begin(queueing=self.queueing())
                    self._gather(order)
                    self._compute()
                    affinity.end()
                else:
                    self._compute()
            except BaseException as error:  # an ended thread would leave requests without an answer
                self._fail(order, error)

    def _work_on_large(self) -> None:
        while isinstance(job := self._large_orders.get(), Job):
            try:
                if self._prepare(job):
                    with self._lock:
                        self._ready.add(job)
                self._compute()
            except BaseException as error:
                self._fail(job, error)

    def _fail(self, order: Job | _Order, error: BaseException) -> None:
        """Count an unexpected exception, and fail the image that the worker had begun with."""
        self._count_failure(error)
        with self._lock:
            if isinstance(order, Job):
                self._settle(order, error if isinstance(error, Exception) else RuntimeError(repr(error)))
        self._deliver()
        self._orders.signal(_Order.COMPUTE)  # rows may be ready

    def _count_failure(self, error: BaseException) -> None:
        logger.error("a worker failed, and goes on", exc_info=error)
        with self._lock:
            self.failures += 1

    def _next_order(self) -> Job | _Order:
        try:
            return self._orders.get(self._max_gather_s if self._ready.gathering else None)
        except Empty:
            return _Order.COMPUTE

    def _gather(self, first: Job) -> None:
        """Prepare an image and, if many wait, a share of the others."""
        with self._lock:
            share = self._ready.begin_share()
        try:
            for job in self._next_jobs(first, share.until):
                if self._prepare(job):
                    share.jobs.append(job)
        finally:
            with self._lock:
                self._ready.complete(share)

    def _next_jobs(self, first: Job, until: float) -> Iterator[Job]:
        """One image, and more if many wait: one engine call and one wake-up of the event loop then serve several."""
        yield first
        rows = first.rows
        remaining = self._orders.qsize() // len(self._threads) if self._gathers else 0
        while remaining > 0 and rows < self._max_gathered_rows and time.monotonic() < until:
            try:
                order = self._orders.get_nowait()
            except Empty:
                return
            if not isinstance(order, Job):
                self._orders.signal(order)
                return
            yield order
            rows += order.rows
            remaining -= 1

    def _prepare(self, job: Job) -> bool:
        """Make an image's rows; False if it has its outcome already, since it expired or failed."""
        try:
            if job.request.unwanted():
                raise TimeoutError(EXPIRED)
            job.prepare_began = time.monotonic()
            job.images_VHWC = job.prepare()
            job.prepare_ended = time.monotonic()
        except BaseException as error:  # extension modules may raise others than Exception
            with self._lock:
                self._settle(job, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            self._deliver()
            return False
        return True

    def _compute(self) -> None:
        """Compute batches until no row is ready or no engine is idle."""
        while True:
            with self._lock:
                batch = self._take_batch() if self._idle else []
                engine = self._idle.pop() if batch else None
                if engine and self._ready and self._idle and self._orders.empty():
                    self._orders.signal(_Order.COMPUTE)
            if engine is None:
                self._deliver()
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
        sharing = len(self._idle) if self._orders.empty() else 1  # with a queue, other workers have work anyway
        most = min(ceil(self._ready.rows / sharing), self._max_batch_size)
        batch, unwanted = self._ready.take(most)
        for job in unwanted:
            self._settle(job, TimeoutError(EXPIRED))
        return batch

    def _run(self, engine: Engine, batch: list[RowSlice]) -> None:
        began = time.monotonic()
        try:
            probabilities_NK = engine.run(join_rows(batch))
            ended = time.monotonic()
            with self._lock:
                self.engine_calls += 1
                for job in store_rows(batch, probabilities_NK):
                    self._settle(job, job.probabilities_VK)
                self.row_s += ((ended - began) / len(probabilities_NK) - self.row_s) / 8
        except BaseException as error:
            rows = sum(last - first for _, first, last in batch)
            logger.error("the engine could not compute a batch of %d rows", rows, exc_info=error)
            with self._lock:
                for job, _, _ in batch:
                    self._settle(job, to_inference_error(error))
            self._deliver()
            if isinstance(error, DeviceLost) and self._on_device_lost:
                self._on_device_lost(str(error))
            return
        self._deliver()
        if self._observer:
            try:
                self._observer.computed(batch, began, ended)
            except Exception as error:  # the results are delivered
                self._count_failure(error)

    def _settle(self, job: Job, outcome: NDArray[np.float32] | Exception) -> None:
        """Give a job its outcome, unless it has one; with the lock held."""
        if job.outcome is None:
            job.outcome = outcome
            job.request.unsettled -= 1
            if job.request.unsettled == 0:
                self._settled.append(job.request)

    def _deliver(self) -> None:
        """Resolve the futures of all settled requests, with one wake-up of the event loop."""
        with self._lock:
            settled, self._settled = self._settled, []
        complete(settled)
