"""A fit, a measured round's arrivals, and what was seen of the CPUs in; what the simulator says of that round out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.capacity_clients import Placement, simulate
from benchmarks.capacity_fit import Fit
from benchmarks.capacity_others import Taken
from benchmarks.capacity_simulator import Request

REPEATS = 5
"""How often each round is simulated: what chance does differs, the arrivals are the same."""
Arrivals = list[list[tuple[float, int]]]
"""For each client: when its requests are due, in seconds, and which photo each has."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Some seconds of one load."""

    arrivals: Arrivals
    begin: float
    """By the system's clock."""
    first: list[int]
    """The replica that each client's first request goes to."""
    latencies_s: list[float]
    """Of all clients' requests."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the CPUs did meanwhile."""

    slowness: Sequence[Callable[[float], float]] = ()
    """Of each CPU, how many times longer than in the fits work took, at a time of the round."""
    interruptions: Sequence[Sequence[tuple[float, float]]] = ()
    """Of each CPU, (when in the round, seconds) of each time that another program had it."""


def during(taken: Sequence[Taken], cpu: int, begin: float, seconds: float) -> list[tuple[float, float]]:
    """When in a round, and for how long, other programs had a CPU."""
    return [(each.at - begin, each.seconds) for each in taken if each.cpu == cpu and begin <= each.at < begin + seconds]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What the simulator says of a round."""

    latencies_s: list[float]
    elapsed_s: float
    busy: float


def simulated(fitted: Fit, measured: Round, replicas: int, seen: Seen) -> list[Predicted]:
    """Simulate a round REPEATS times."""
    return [predict(fitted, measured, replicas, seen, seed) for seed in range(REPEATS)]


def predict(fitted: Fit, measured: Round, replicas: int, seen: Seen, seed: int) -> Predicted:
    """Simulate a round."""
    requests = [[Request(due, [fitted.prepare_s[photo]]) for due, photo in each] for each in measured.arrivals]
    placement = Placement(
        replicas=range(replicas),
        clients=range(replicas) if replicas > 1 else [1],
        cpus=[1, 1],
        slowness=seen.slowness,
        interruptions=seen.interruptions,
    )
    summary = simulate(
        fitted.model,
        requests,
        replicas=replicas,
        client=fitted.client,
        placement=placement,
        first=measured.first,
        seed=seed,
    )
    latencies_s = [request.latency_s for each in requests for request in each]
    return Predicted(latencies_s=latencies_s, elapsed_s=len(latencies_s) / summary.requests_per_s, busy=summary.busy)
