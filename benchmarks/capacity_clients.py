"""Replicas, clients and an arrival rate in; throughput and percentiles of latency out."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf

from benchmarks.capacity_events import Clock, Cores, Loop
from benchmarks.capacity_model import LoopCosts, ReplicaModel
from benchmarks.capacity_simulator import Replica, Request
from serving.context import ClientIdentity

BALANCES = ("round_robin", "least_loaded", "per_connection")
"""How a client chooses: each replica in turn; the one with the fewest of its own requests unanswered; always the same
one, as a client does whose one connection goes through a load balancer that only sees connections."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which machines there are, and what runs on them."""

    replicas: Sequence[int]
    """Each replica's machine."""
    clients: Sequence[int | None]
    """Each client's machine; None for one that takes no CPU time of any."""
    cpus: Sequence[int]
    """Of each machine."""
    slowness: Sequence[Callable[[float], float] | None] = ()
    """Of each machine at a time: how many times longer than usual work takes; empty: never longer."""
    interruptions: Sequence[Sequence[tuple[float, float]]] = ()
    """Of each machine: (when, seconds) of each time that something else had one of its CPUs; empty: never."""
    gpus: Sequence[int] = ()
    """Each replica's GPU, which it may share with others; empty: each that computes on a GPU has one of its own."""


def apart(model: ReplicaModel, replicas: int, clients: int) -> Placement:
    """Every replica on a machine of its own, with the CPUs that its model has; clients elsewhere."""
    return Placement(replicas=range(replicas), clients=[None] * clients, cpus=[model.cpus] * replicas)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What clients saw."""

    sent: int
    answered: int
    refused: int
    requests_per_s: float
    """Answered, from when the first was due until the last answer; refusals do not count."""
    p50_ms: float
    p99_ms: float
    busy: float
    """Of the replicas' machines' CPUs, the share that was used."""
    rows_per_call: float
    """In an engine call, on average."""


def simulate(
    model: ReplicaModel,
    arrivals: Sequence[Sequence[Request]],
    *,
    replicas: int,
    balance: str = "round_robin",
    client: LoopCosts = LoopCosts(request_s=0, picture_s=0, wake_s=0),  # noqa: B008 - frozen
    placement: Placement | None = None,
    first: Sequence[int] = (),
    seed: int = 0,
) -> Summary:
    """Send the requests of each client, and wait for all answers. The requests note what became of them.

    Args:
        model: of each replica.
        arrivals: for each client its requests, ordered by the time when they are due.
        replicas: how many there are.
        balance: one of BALANCES.
        client: CPU time that clients take, where they are placed on a machine.
        placement: which machines there are.
        first: the replica that each client's first request goes to, where it chooses by turns; empty: any.
        seed: of the engine calls' spread, and of where clients begin.

    Raises:
        ValueError: if there is no request, or for another balance.
    """
    if not any(arrivals):
        raise ValueError("there are no requests to simulate; give a rate and a time in which at least one arrives")
    if balance not in BALANCES:
        raise ValueError(f"balance is {balance!r}; there are {', '.join(BALANCES)}")
    placement = placement or apart(model, replicas, len(arrivals))
    rng = random.Random(seed)
    clock = Clock()
    slowness = placement.slowness or [None] * len(placement.cpus)
    machines = [Cores(clock, cpus, slower) for cpus, slower in zip(placement.cpus, slowness, strict=True)]
    for machine, taken in zip(machines, placement.interruptions or [()] * len(machines), strict=True):
        for at_s, seconds in taken:
            clock.at(at_s, partial(machine.interrupt, seconds))
    gpus = placement.gpus or range(replicas)
    engines = [Cores(clock, 1) for _ in range(max(gpus) + 1)]  # calls on one GPU share it evenly
    servers = [
        Replica(clock, machines[at], engines[gpu] if model.on_gpu else machines[at], model, rng)
        for at, gpu in zip(placement.replicas, gpus, strict=True)
    ]
    elsewhere = Cores(clock, len(arrivals))
    for number, (requests, at) in enumerate(zip(arrivals, placement.clients, strict=True)):
        cores = elsewhere if at is None else machines[at]
        turn = first[number] if first else rng.randrange(replicas)
        loop, reader = Loop(cores, client.wake_s), Loop(cores)
        sender = _Client(clock, number, servers, loop, reader, client, balance, turn)
        for request in requests:
            clock.at(request.due_s, partial(sender.send, request))
    clock.run()
    assert not any(server.rows_in_flight for server in servers)
    cores = [machines[at] for at in set(placement.replicas)]
    return _summary(arrivals, servers, cores, sum(placement.cpus[at] for at in set(placement.replicas)))


class _Client:
    """Sends requests, whatever becomes of earlier ones."""

    def __init__(
        self,
        clock: Clock,
        number: int,
        servers: Sequence[Replica],
        loop: Loop,
        reader: Loop,
        costs: LoopCosts,
        balance: str,
        turn: int,
    ) -> None:
        self._clock = clock
        self._caller = ClientIdentity(f"client-{number}", "one")
        self._servers = servers
        self._loop = loop
        self._reader = reader
        self._costs = costs
        self._balance = balance
        self._turn = turn
        self._unanswered = [0] * len(servers)

    def send(self, request: Request) -> None:
        half_s = self._costs.seconds(len(request.prepare_s)) / 2

        def leave() -> None:
            request.replica = self._choose()
            self._unanswered[request.replica] += 1
            self._servers[request.replica].ask(request, self._caller, read)

        def read() -> None:
            if self._costs.read_s:
                self._reader.do(self._costs.read_s, hear)
            else:
                hear()

        def hear() -> None:
            self._loop.do(half_s, receive)

        def receive() -> None:
            self._unanswered[request.replica] -= 1
            request.done_s = self._clock.now

        self._loop.do(half_s, leave)

    def _choose(self) -> int:
        count = len(self._servers)
        if self._balance == "per_connection":
            return self._turn
        turn, self._turn = self._turn, (self._turn + 1) % count
        if self._balance == "round_robin":
            return turn
        following = (*range(turn, count), *range(turn))
        return min(following, key=self._unanswered.__getitem__)


def poisson(
    model: ReplicaModel, *, rate: float, seconds: float, clients: int, seed: int, pictures: int = 1, views: int = 1
) -> list[list[Request]]:
    """Requests of many who know nothing of each other: for each client a Poisson process with its share of the rate."""
    rng = random.Random(seed)
    arrivals: list[list[Request]] = [[] for _ in range(clients)]
    due = rng.expovariate(rate)
    while due < seconds:
        request = Request(due, rng.choices(model.prepare_s, k=pictures), views)
        arrivals[rng.randrange(clients)].append(request)
        due += rng.expovariate(rate)
    return arrivals


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed; infinite if there are none."""
    return next(islice(ordered, min(len(ordered) - 1, int(share * len(ordered))), None)) if ordered else inf


def _summary(
    arrivals: Iterable[Iterable[Request]], servers: Sequence[Replica], cores: Sequence[Cores], cpus: int
) -> Summary:
    requests = [request for each in arrivals for request in each]
    answered = [request for request in requests if not request.refused and request.done_s < inf]
    latencies = sorted(request.latency_s for request in answered)
    first = min(request.due_s for request in requests)
    elapsed = max(request.done_s for request in requests) - first
    calls = sum(server.engine_calls for server in servers)
    return Summary(
        sent=len(requests),
        answered=len(answered),
        refused=sum(request.refused for request in requests),
        requests_per_s=len(answered) / elapsed if elapsed else inf,
        p50_ms=1000 * percentile(latencies, 0.5),
        p99_ms=1000 * percentile(latencies, 0.99),
        busy=sum(each.busy_s for each in cores) / (cpus * elapsed) if elapsed else 0.0,
        rows_per_call=sum(server.computed_rows for server in servers) / calls if calls else 0.0,
    )
