"""Dynamic batching: one engine call computes rows of several requests.

The number of rows in flight is bounded, and checked before an image is prepared, so rejected requests cost nothing.
workers.py describes how rows become batches.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import inf

import numpy as np
from numpy.typing import NDArray

from serving.batching.admission import Admission, Demand
from serving.batching.requests import NO_WORK, BatchObserver, Job, Prepare, Request
from serving.batching.workers import WorkerOptions, Workers
from serving.context import INTERNAL_CLIENT, Call, ClientIdentity
from serving.engine.base import Engine
from serving.image.decode import DecodeWork


class DynamicBatcher:
    """Shares engines between requests, in an order that is fair to their clients. For one event loop."""

    def __init__(
        self,
        engines: Sequence[Engine],
        admission: Admission,
        workers: WorkerOptions,
        observer: BatchObserver | None = None,
        on_device_lost: Callable[[str], None] | None = None,
    ) -> None:
        """Start the worker threads.

        Args:
            engines: instances of one model.
            admission: bounds the rows in flight; not shared with another batcher.
            observer: is notified of every batch.
            on_device_lost: is called with the reason, in any thread, if an engine raises DeviceLost.
        """
        self._admission = admission
        self._workers = Workers(engines, workers, observer, on_device_lost)

    @property
    def max_rows(self) -> int:
        """Most rows in flight."""
        return self._admission.max_rows

    @property
    def engine_calls(self) -> int:
        """Number of batches that were computed."""
        return self._workers.engine_calls

    @property
    def worker_failures(self) -> int:
        """Number of unexpected exceptions in worker threads."""
        return self._workers.failures

    @property
    def rows_in_flight(self) -> int:
        """Rows that were admitted and not answered yet; those of a cancelled request do not count."""
        return self._admission.rows

    async def compute(
        self,
        prepares: Sequence[Prepare],
        rows: int,
        timeout_s: float | None = None,
        *,
        works: Iterable[DecodeWork] = repeat(NO_WORK),
        extra: bool = False,
        client: ClientIdentity = INTERNAL_CLIENT,
        call: Call | None = None,
    ) -> list[NDArray[np.float32] | Exception]:
        """Prepare and compute images. If the task is cancelled, its images leave the queue.

        Args:
            prepares: one for each image, at least one.
            rows: number of rows that each makes, at least one.
            timeout_s: seconds until the outcomes are of no use; None for no limit.
            works: the estimated work of each of `prepares`.
            extra: these are further views of images whose first view was computed: they are never rejected, and go
                after the first views of other images.
            client: client that the rows are charged to.
            call: the call that is being answered, for traces.

        Returns:
            For each image its probabilities, float32 `[V, K]`, or an exception: what its `prepare` raised,
            InferenceError, MemoryError or TimeoutError.

        Raises:
            QueueFull: if too many rows are in flight, of all clients or of this one, or if the answer would come too
                late; nothing was begun.
        """
        begin = time.monotonic()
        request = Request(len(prepares), inf if timeout_s is None else begin + timeout_s, client, call)
        row_s = self._workers.row_s
        jobs = [
            Job(request, prepare, rows, row_s=row_s, extra=extra, work=work)
            for prepare, work in zip(prepares, works, strict=False)
        ]
        demand = Demand(len(jobs) * rows, sum(job.work_us for job in jobs), any(job.large for job in jobs))
        expected_s = self._admission.enter(client, demand, timeout_s, admitted=extra)
        try:
            for job in jobs:
                self._workers.put(job)
            await request.done
        except asyncio.CancelledError:
            self._admission.given_up(demand, time.monotonic() - begin, expected_s)
            raise
        finally:
            self._admission.leave(client, demand)
            request.abandoned = True
        waiting = self._workers.queueing(large=demand.large)
        self._admission.answered(demand, time.monotonic() - begin, expected_s, waiting=waiting)
        outcomes = []
        for job in jobs:
            assert job.outcome is not None
            outcomes.append(job.outcome)
            job.outcome = None  # the traceback of an exception refers to its job, which refers to the image
        return outcomes

    def close(self) -> None:
        """Compute what is in flight, then stop the threads."""
        self._workers.close()
