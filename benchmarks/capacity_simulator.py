"""A replica's costs and the times of arrivals in; when each request is answered out.

The queue's rules are the server's own, and its orders are the server's own code:
bounded in rows and shared fairly between clients before anything is begun; workers take pictures, in an order that is
fair to clients, gather a share of the queue where every worker can have an engine, and compute what is ready as soon as
an engine is idle; what a worker keeps for too long, others compute. Left out: deadlines, cancelled calls, lanes (all
requests are alike), and the interpreter's lock beyond the event loop's own work.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf

from benchmarks.capacity_events import Act, Clock, Cores, Loop, Process, spawn
from benchmarks.capacity_model import ReplicaModel
from serving.batching.admission import Quotas
from serving.batching.fair_queue import FairOrder, FairQueue
from serving.batching.ready_rows import MAX_GATHER_S
from serving.batching.workers import MAX_GATHERED_ROWS
from serving.context import Caller


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
    caller: Caller
    prepare_s: float
    answered: Act
    taken: int = 0
    uncomputed: int = field(init=False)

    def __post_init__(self) -> None:
        self.uncomputed = self.request.views


class _Compute:
    """What a worker is told that finds rows ready, rather than a picture to prepare."""


_COMPUTE = _Compute()


@dataclass(eq=False, slots=True)
class _Gathered:
    """What one worker has prepared, and keeps until it has its share."""

    until: float
    jobs: deque[_Job] = field(default_factory=deque)


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
        self._shares = Quotas(model.max_rows)
        self._gathers = model.workers <= model.instances
        self._orders: FairQueue[_Job, _Compute] = FairQueue()
        self._resting: list[Act] = []
        self._idle = model.instances
        self._ready: FairOrder[_Job] = FairOrder()
        self._ready_rows = 0
        self._gathered: set[_Gathered] = set()
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
                job = _Job(request, caller, prepare_s, partial(self._loop.do, half_s, leave))
                self._orders.put(job, caller, request.views)
                self._wake()

        def leave() -> None:
            self._shares.give_back(caller, pictures * request.views)
            answered()

        wire_s = pictures * self.model.request_bytes / self.model.nic_bytes_per_s
        self._nic.do(wire_s, partial(self._loop.do, half_s, admit))

    def _wake(self) -> None:
        if self._resting:
            self._resting.pop()()

    def _rest(self, resume: Act) -> None:
        """Wait for an order; where a worker keeps what it has prepared, not for longer than it may."""
        self._resting.append(resume)

        def give_up() -> None:
            if resume in self._resting:
                self._resting.remove(resume)
                resume()

        if self._gathered:
            self._clock.at(self._clock.now + MAX_GATHER_S, give_up)

    def _work(self) -> Process:
        thread = object()
        while True:
            idle_s = self._cores.idle_s
            if self._orders.empty():
                yield self._rest
            order = _COMPUTE if self._orders.empty() else self._orders.get_nowait()
            if isinstance(order, _Job):
                yield from self._gather(order, self.model.rested_seconds(self._cores.idle_s - idle_s), thread)
            yield from self._compute(thread)

    def _gather(self, job: _Job, extra_s: float, thread: object) -> Process:
        """Prepare a picture, which costs so much more than usual, and a share of those that wait."""
        share = self._orders.qsize() // self.model.workers if self._gathers else 0
        gathered = _Gathered(self._clock.now + MAX_GATHER_S)
        self._gathered.add(gathered)
        rows = 0
        while True:
            usual_s = max(0.0, job.prepare_s + self.model.worker_s)
            seconds = usual_s * self._rng.choice(self.model.spread) + extra_s
            yield partial(self._cores.compute, seconds, thread=thread)
            extra_s = 0.0
            gathered.jobs.append(job)
            rows += job.request.views
            if share <= 0 or rows >= MAX_GATHERED_ROWS or self._clock.now >= gathered.until or self._orders.empty():
                break
            order = self._orders.get_nowait()
            if not isinstance(order, _Job):
                self._orders.signal(order)
                self._wake()
                break
            job = order
            share -= 1
        self._gathered.remove(gathered)
        self._offer(gathered)

    def _offer(self, gathered: _Gathered) -> None:
        while gathered.jobs:
            job = gathered.jobs.popleft()
            self._ready.put(job, job.caller, job.request.views)
            self._ready_rows += job.request.views

    def _compute(self, thread: object) -> Process:
        """Compute batches until no row is ready or no engine is idle."""
        while self._idle and (batch := self._take_batch()):
            self._idle -= 1
            if self._ready and self._idle and self._orders.empty():
                self._orders.signal(_COMPUTE)
                self._wake()
            rows = sum(count for _, count in batch)
            seconds = self.model.engine_seconds(rows) * self._rng.choice(self.model.spread)
            yield partial(self._engines_on.compute, seconds, thread=thread)
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
        if not self._ready:
            for gathered in self._gathered:
                if self._clock.now > gathered.until:
                    self._offer(gathered)
        sharing = self._idle if self._orders.empty() else 1
        room = min(ceil(self._ready_rows / sharing), self.model.max_batch_size)
        batch = []
        while self._ready and room:
            job = self._ready.peek()
            count = min(room, job.request.views - job.taken)
            job.taken += count
            batch.append((job, count))
            room -= count
            self._ready_rows -= count
            if job.taken == job.request.views:
                self._ready.take()
        return batch
