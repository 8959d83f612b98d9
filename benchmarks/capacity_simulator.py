"""A replica's costs and the times of arrivals in; when each request is answered out.

The queue's rules are the server's own (serving/batcher.py): bounded in rows and shared fairly between clients before
anything is begun; workers take pictures, first come, first served, gather a share of the queue where every worker can
have an engine, and compute what is ready as soon as an engine is idle. Left out: deadlines, cancelled calls, lanes
(all requests are alike), and the interpreter's lock beyond the event loop's own work.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf

from benchmarks.capacity_events import Act, Clock, Cores, Loop, Process, spawn
from benchmarks.capacity_model import ReplicaModel
from serving.batcher import MAX_GATHERED_ROWS
from serving.callers import Caller
from serving.fair_shares import FairShares
from serving.ready import MAX_GATHER_S


@dataclass(slots=True)
class Request:
    """One request, and what became of it."""

    due_s: float
    """When its client wants to send it."""
    prepare_s: Sequence[float]
    """For each picture, seconds to prepare it."""
    views: int = 1
    replica: int = -1
    done_s: float = inf
    """When its client has the answer, or the refusal."""
    refused: bool = False
    unsettled: int = 0

    @property
    def latency_s(self) -> float:
        """From when it was due."""
        return self.done_s - self.due_s


@dataclass(slots=True)
class _Job:
    """One picture."""

    request: Request
    prepare_s: float
    answered: Act
    taken: int = 0
    uncomputed: int = field(init=False)

    def __post_init__(self) -> None:
        self.uncomputed = self.request.views


_COMPUTE = None
"""What a worker is told that finds rows ready, rather than a picture to prepare."""


class Replica:
    """One server process, on CPUs and perhaps a GPU that it may share with others."""

    def __init__(self, clock: Clock, cores: Cores, engines_on: Cores, model: ReplicaModel, rng: random.Random) -> None:
        self.model = model
        self.engine_calls = self.computed_rows = 0
        self._clock = clock
        self._cores = cores
        self._engines_on = engines_on
        self._nic = Loop(Cores(clock, 1))
        self._rng = rng
        self._loop = Loop(cores, model.loop.wake_s)
        self._shares = FairShares(model.max_rows)
        self._gathers = model.workers <= model.instances
        self._orders: deque[_Job | None] = deque()
        self._resting: list[Act] = []
        self._idle = model.instances
        self._ready: deque[_Job] = deque()
        self._ready_rows = 0
        for _ in range(model.workers):
            spawn(self._work())

    @property
    def rows_in_flight(self) -> int:
        """Rows that were admitted and not answered."""
        return self._shares.total

    def ask(self, request: Request, caller: Caller, answered: Act) -> None:
        """Receive a request; `answered` is called when its answer, or refusal, leaves."""
        pictures = len(request.prepare_s)
        half_s = self.model.loop.seconds(pictures) / 2  # to read it; as much again to answer

        def admit() -> None:
            rows = pictures * request.views
            if not self._shares.admits(caller, rows):
                request.refused = True
                self._loop.do(half_s, answered)
                return
            self._shares.take(caller, rows)
            request.unsettled = pictures
            for prepare_s in request.prepare_s:
                self._put(_Job(request, prepare_s, partial(self._loop.do, half_s, leave)))

        def leave() -> None:
            self._shares.give_back(caller, pictures * request.views)
            answered()

        wire_s = pictures * self.model.request_bytes / self.model.nic_bytes_per_s
        self._nic.do(wire_s, partial(self._loop.do, half_s, admit))

    def _put(self, order: _Job | None) -> None:
        self._orders.append(order)
        if self._resting:
            self._resting.pop()()

    def _work(self) -> Process:
        while True:
            since = self._clock.now
            while not self._orders:
                yield self._resting.append
            first = self._orders.popleft()
            if first is not _COMPUTE:
                yield from self._prepare(first, self.model.rested_seconds(self._clock.now - since))
            yield from self._compute()

    def _prepare(self, job: _Job, extra_s: float) -> Process:
        """Prepare a picture, which costs so much more than usual, and a share of those that wait."""
        share = len(self._orders) // self.model.workers if self._gathers else 0
        until = self._clock.now + MAX_GATHER_S
        prepared: list[_Job] = []
        rows = 0
        while True:
            usual_s = max(0.0, job.prepare_s + self.model.worker_s)
            yield partial(self._cores.compute, usual_s * self._rng.choice(self.model.spread) + extra_s)
            extra_s = 0.0
            prepared.append(job)
            rows += job.request.views
            if not share or rows >= MAX_GATHERED_ROWS or self._clock.now >= until or not self._orders:
                break
            following = self._orders[0]
            if following is _COMPUTE:
                break
            self._orders.popleft()
            job = following
            share -= 1
        self._ready.extend(prepared)
        self._ready_rows += rows

    def _compute(self) -> Process:
        """Compute batches until no row is ready or no engine is idle."""
        while self._ready and self._idle:
            batch = self._take_batch()
            self._idle -= 1
            if self._ready and self._idle and not self._orders:
                self._put(_COMPUTE)
            rows = sum(count for _, count in batch)
            seconds = self.model.engine_seconds(rows) * self._rng.choice(self.model.spread)
            yield partial(self._engines_on.compute, seconds)
            self.engine_calls += 1
            self.computed_rows += rows
            for job, count in batch:
                job.uncomputed -= count
                if not job.uncomputed:
                    job.request.unsettled -= 1
                    if not job.request.unsettled:
                        job.answered()
            self._idle += 1

    def _take_batch(self) -> list[tuple[_Job, int]]:
        sharing = 1 if self._orders else self._idle
        room = min(ceil(self._ready_rows / sharing), self.model.max_batch_size)
        batch = []
        while self._ready and room:
            job = self._ready[0]
            count = min(room, job.request.views - job.taken)
            job.taken += count
            batch.append((job, count))
            room -= count
            self._ready_rows -= count
            if job.taken == job.request.views:
                self._ready.popleft()
        return batch
