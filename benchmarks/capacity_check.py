"""A fitted model and real servers in; how far what it predicts is from what is measured, out.

Replicas on a CPU each, and loads that send at random times, whatever becomes of earlier requests: one for one replica,
on the other CPU; for two replicas two loads, on the same two CPUs, each sending to both by turns. The simulator gets
the very same times and photos, and the loads' own CPU time where it is a replica's.
"""

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.capacity_clients import Placement, percentile, simulate
from benchmarks.capacity_fit import Fit, Fitting
from benchmarks.capacity_servers import Pinned, answer_of, pinned_server, start_load, two_cpus
from benchmarks.capacity_simulator import Request
from serving.bundle import Bundle

START_S = 2.5
"""After which time all loads begin: until then they start, read their photos and warm up."""
FIT_S = 1.5
"""How long each load of a fit is kept up."""


def check(
    bundle: Bundle, photos: Sequence[Path], *, replicas: int, loads: Sequence[float], seconds: float, seed: int
) -> tuple[Fit, list[dict[str, float]]]:
    """Fit, and measure each load, by turns; then predict each of them from all that was fitted.

    Args:
        bundle: what is served.
        photos: in the order in which requests use them.
        replicas: 1 or 2, each on a CPU.
        loads: as shares of the capacity that the first fit predicts.
        seconds: how long each load is kept up.
        seed: of the times of arrivals.
    """
    cpus = two_cpus()
    measured = []
    with ExitStack() as stack:
        servers = [stack.enter_context(pinned_server(bundle, cpu)) for cpu in cpus[:replicas]]
        fitting = Fitting(bundle, photos, servers[0], cpus[1], FIT_S)
        fitting.measure()
        capacity = capacity_of(fitting.result(), replicas)
        for number, load in enumerate(loads):
            arrivals = draw(load * capacity, seconds, clients=replicas, photos=len(photos), seed=1000 * seed + number)
            measured.append((load, arrivals, measure(servers, cpus, photos, arrivals)))
            if number % 2:
                fitting.measure()
    fitted = fitting.result()
    rows = []
    for load, arrivals, seen in measured:
        row = {"replicas": replicas, "load": load, "offered_per_s": sum(map(len, arrivals)) / seconds}
        predicted = predict(fitted, arrivals, replicas)
        for name, value in seen.items():
            row |= {f"measured_{name}": value, f"predicted_{name}": predicted[name]}
        rows.append(row)
    return fitted, rows


def capacity_of(fitted: Fit, replicas: int) -> float:
    """Requests a second; a load on a replica's own CPU takes its share of it."""
    return replicas / (1 / fitted.model.capacity() + (fitted.client.seconds(1) if replicas > 1 else 0.0))


def draw(rate: float, seconds: float, *, clients: int, photos: int, seed: int) -> list[list[tuple[float, int]]]:
    """For each client when its requests are due, and which photo each has: Poisson processes."""
    rng = random.Random(seed)
    arrivals: list[list[tuple[float, int]]] = [[] for _ in range(clients)]
    due = rng.expovariate(rate)
    while due < seconds:
        arrivals[rng.randrange(clients)].append((due, rng.randrange(photos)))
        due += rng.expovariate(rate)
    return arrivals


def predict(fitted: Fit, arrivals: Sequence[Sequence[tuple[float, int]]], replicas: int) -> dict[str, float]:
    """What the simulator says of these arrivals."""
    requests = [[Request(due, [fitted.prepare_s[photo]]) for due, photo in each] for each in arrivals]
    placement = Placement(
        replicas=range(replicas),
        clients=range(replicas) if replicas > 1 else [1],
        cpus=[1, 1],
    )
    summary = simulate(fitted.model, requests, replicas=replicas, client=fitted.client, placement=placement)
    return {
        "per_s": summary.requests_per_s,
        "p50_ms": summary.p50_ms,
        "p99_ms": summary.p99_ms,
        "busy": summary.busy,
    }


def measure(
    servers: Sequence[Pinned],
    cpus: Sequence[int],
    photos: Sequence[Path],
    arrivals: Sequence[Sequence[tuple[float, int]]],
) -> dict[str, float]:
    """What the servers do."""
    at = cpus if len(servers) > 1 else cpus[1:]
    begin = time.time() + START_S
    loads = [start_load(cpu, servers, photos, arrivals=own, begin=begin) for cpu, own in zip(at, arrivals, strict=True)]
    answers: list[dict[str, Any]] = [answer_of(load) for load in loads]
    latencies = sorted(latency for answer in answers for latency in answer["latencies_s"])
    elapsed_s = max(answer["elapsed_s"] for answer in answers) - min(own[0][0] for own in arrivals if own)
    # each load saw all servers: the first one's account is as long as the others'
    used = [*answers[0]["servers"], *(answer["client"] for answer in answers if len(servers) > 1)]
    return {
        "per_s": len(latencies) / elapsed_s,
        "p50_ms": 1000 * percentile(latencies, 0.5),
        "p99_ms": 1000 * percentile(latencies, 0.99),
        "busy": sum(each["loop_s"] + each["others_s"] for each in used) / (len(servers) * elapsed_s),
    }
