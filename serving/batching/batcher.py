"""Pictures of many requests in; one engine call for the rows of several; each request's probabilities out.

What may be in flight is bounded in rows, from before anything is prepared until the answer: overload costs nothing.
How rows become batches is told in workers.py.
"""

import asyncio
import time
from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from serving.batching.admission import Admission
from serving.batching.requests import BatchObserver, Job, Prepare, Request
from serving.batching.workers import Workers
from serving.engine.base import Engine
from serving.engine.single_row import SingleRowEngine


class DynamicBatcher:
    """Shares engines between requests, in an order fair to their callers. Requests come from one event loop."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        workers: int,
        max_rows: int,
        cpus: Sequence[int] = (),
        lone: SingleRowEngine | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        """Start the worker threads.

        Args:
            engines: instances of one model.
            workers: threads that prepare pictures and run engines (plan.py counts them).
            max_rows: most rows in flight.
            cpus: the workers keep to one of these each (binding.py); empty to leave them to the scheduler.
            lone: computes a row while no other is in flight; None if one of `engines` does.
            observer: hears of every batch.
        """
        self.max_rows = max_rows
        self._admission = admission = Admission(max_rows)  # of rows in flight; only changed in the event loop
        self._workers = Workers(
            engines, count=workers, cpus=cpus, lone=lone, alone=lambda: admission.rows == 1, observer=observer
        )

    @property
    def engine_calls(self) -> int:
        """How many batches were computed."""
        return self._workers.engine_calls

    @property
    def rows_in_flight(self) -> int:
        """Rows from admission to answer; those of a request that was cancelled do not count."""
        return self._admission.rows

    async def compute(
        self, prepares: Sequence[Prepare], rows: int, timeout_s: float | None = None, *, extra: bool = False
    ) -> list[NDArray[np.float32] | Exception]:
        """Prepare and compute some pictures.

        A caller that is cancelled takes its pictures out of the queue.

        Args:
            prepares: one for each picture, at least one.
            rows: how many rows each makes, at least one.
            timeout_s: seconds after which nobody wants the outcomes; None for never.
            extra: these are further views of pictures whose first view was computed: they are not refused, and go
                after the first views of others.

        Returns:
            For each picture its probabilities, float32 `[V, K]`, or the exception that stopped it: what its `prepare`
            raised, InferenceError, or TimeoutError.

        Raises:
            QueueFull: if too many rows are in flight, of all callers or of this one, or if the answer would come too
                late; nothing was begun.
        """
        total = len(prepares) * rows
        begin = time.monotonic()
        request = Request(len(prepares), inf if timeout_s is None else begin + timeout_s)
        expected_s = self._admission.enter(request.caller, total, timeout_s, admitted=extra)
        jobs = [Job(request, prepare, rows, extra=extra) for prepare in prepares]
        try:
            for job in jobs:
                self._workers.put(job)
            await request.done
        except asyncio.CancelledError:
            self._admission.given_up(time.monotonic() - begin, expected_s)
            raise
        finally:
            self._admission.leave(request.caller, total)
            request.abandoned = True
        self._admission.answered(total, time.monotonic() - begin, expected_s, waiting=self._workers.queueing)
        outcomes = []
        for job in jobs:
            assert job.outcome is not None
            outcomes.append(job.outcome)
            job.outcome = None  # the traceback of an exception refers to its job, which refers to the picture
        return outcomes

    def close(self) -> None:
        """Compute what is in flight, then stop the threads."""
        self._workers.close()
