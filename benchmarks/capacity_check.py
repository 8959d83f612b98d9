"""A fitted model and real servers in; how far what it predicts is from what is measured, out.

Replicas on a CPU each, and loads that send at random times, whatever becomes of earlier requests: one for one replica,
on the other CPU; for two replicas two loads, on the same two CPUs, each sending to both by turns. The simulator gets
the very same times, photos and turns, and the loads' own CPU time where it is a replica's. Each load is kept up for
several rounds, while the CPUs are watched: how fast they are, and when other programs have them. What is predicted for
these CPUs is told, and what is predicted for CPUs at their usual pace, that of the fits, that nobody else ever uses.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.capacity_clients import percentile
from benchmarks.capacity_fit import Fit, Fitting
from benchmarks.capacity_others import Others, Taken
from benchmarks.capacity_predict import Arrivals, Round, Seen, during, simulated
from benchmarks.capacity_probe import Interval, Probes, slowness
from benchmarks.capacity_servers import Pinned, answer_of, pinned_server, start_load, two_cpus
from serving.bundle.manifest import Bundle

START_S = 2.2
"""After which time all loads begin: until then they start, read their photos and warm up."""
PAUSE_S = 0.5
"""Between rounds: what is queued is answered by then, unless the load is an overload."""
FIT_S = 1.0
"""How long each load of a fit is kept up."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What servers did under one load."""

    load: float
    seconds: float
    """How long each round was."""
    rounds: list[Round]
    per_s: float
    busy: float


def check(
    bundle: Bundle,
    photos: Sequence[Path],
    *,
    replicas: int,
    loads: Sequence[float],
    rounds: int,
    seconds: float,
    seed: int,
) -> tuple[Fit, list[dict[str, Any]]]:
    """Fit, and fit again after each load; then predict each load from all that was fitted.

    Args:
        bundle: what is served.
        photos: in the order in which requests use them.
        replicas: 1 or 2, each on a CPU.
        loads: as shares of the capacity that the first fit predicts, beside what other programs took meanwhile.
        rounds: of each load, each with arrivals of its own.
        seconds: how long each round of the heaviest load is. Rounds of lighter ones are as much longer, so that all
            have as many requests: a 99th percentile of few would be the longest or the second longest.
        seed: of the times of arrivals.
    """
    cpus = two_cpus()
    measured = []
    fits: list[Interval] = []
    with ExitStack() as stack:
        probes = stack.enter_context(Probes(bundle, cpus))
        others = stack.enter_context(Others(probes.pids))
        servers = [stack.enter_context(pinned_server(bundle, cpu)) for cpu in cpus[:replicas]]
        fitting = Fitting(bundle, photos, servers, cpus[::-1][:replicas], FIT_S)

        def fit() -> None:
            begin = time.time()
            fitting.measure()
            fits.append((begin, time.time()))

        fit()
        capacity = capacity_of(fitting.result(), replicas, share(others.taken, cpus[:replicas], fits[0]))
        for number, load in enumerate(loads):
            first = 1000 * seed + 100 * number
            kept_up_s = seconds * max(loads) / load
            draws = [
                draw(load * capacity, kept_up_s, clients=replicas, photos=len(photos), seed=first + i)
                for i in range(rounds)
            ]
            measured.append(measure(servers, cpus, photos, draws, load=load, seconds=kept_up_s))
            fit()
    fitted = fitting.result()

    def seen(begin: float, seconds: float) -> Seen:
        return Seen(
            slowness=[slowness(samples, fits, begin, seconds) for samples in probes.samples],
            interruptions=[during(others.taken, cpu, begin, seconds) for cpu in cpus],
        )

    return fitted, [_row(fitted, each, seen, replicas) for each in measured]


def _row(fitted: Fit, load: Measured, seen: Callable[[float, float], Seen], replicas: int) -> dict[str, Any]:
    """Predictions beside measurements: for usual CPUs, and for what was seen of these."""
    usual = [simulated(fitted, each, replicas, Seen()) for each in load.rounds]
    followed = [simulated(fitted, each, replicas, seen(each.begin, load.seconds)) for each in load.rounds]
    row: dict[str, Any] = {
        "replicas": replicas,
        "load": load.load,
        "offered_per_s": sum(len(own) for each in load.rounds for own in each.arrivals)
        / (load.seconds * len(load.rounds)),
        "measured_per_s": load.per_s,
        "measured_busy": load.busy,
    }
    measured_ms = {percent: [_percentile_ms(each.latencies_s, percent) for each in load.rounds] for percent in (50, 99)}
    for percent, of_rounds in measured_ms.items():
        row[f"measured_p{percent}_ms"] = median(of_rounds)
        row[f"measured_p{percent}_ms_of_rounds"] = of_rounds
    for name, predicted in (("usual", usual), ("predicted", followed)):
        runs = [run for each in predicted for run in each]
        row[f"{name}_per_s"] = sum(len(run.latencies_s) for run in runs) / sum(run.elapsed_s for run in runs)
        row[f"{name}_per_s_ratio"] = row[f"{name}_per_s"] / load.per_s
        row[f"{name}_busy"] = fmean(run.busy for run in runs)
        for percent, measured in measured_ms.items():
            of_rounds = [fmean(_percentile_ms(run.latencies_s, percent) for run in each) for each in predicted]
            row[f"{name}_p{percent}_ms"] = median(of_rounds)
            row[f"{name}_p{percent}_ms_of_rounds"] = of_rounds
            row[f"{name}_p{percent}_ms_ratio"] = median(
                ours / theirs for ours, theirs in zip(of_rounds, measured, strict=True)
            )
    return row


def _percentile_ms(latencies_s: Sequence[float], percent: int) -> float:
    return 1000 * percentile(sorted(latencies_s), percent / 100)


def capacity_of(fitted: Fit, replicas: int, theirs: float) -> float:
    """Requests a second, on CPUs of which other programs, the probes among them, take the share `theirs`.

    A load on a replica's own CPU takes its part of it.
    """
    client = fitted.client
    request_s = 1 / fitted.model.capacity() + (client.seconds(1) + client.read_s if replicas > 1 else 0.0)
    return replicas * (1 - theirs) / request_s


def share(taken: Sequence[Taken], cpus: Sequence[int], interval: Interval) -> float:
    """Of the CPUs' time, what other programs took."""
    begin, end = interval
    return fmean(sum(s for _, s in during(taken, cpu, begin, end - begin)) for cpu in cpus) / (end - begin)


def draw(rate: float, seconds: float, *, clients: int, photos: int, seed: int) -> Arrivals:
    """Poisson processes."""
    rng = random.Random(seed)
    arrivals: Arrivals = [[] for _ in range(clients)]
    due = rng.expovariate(rate)
    while due < seconds:
        arrivals[rng.randrange(clients)].append((due, rng.randrange(photos)))
        due += rng.expovariate(rate)
    return arrivals


def measure(
    servers: Sequence[Pinned],
    cpus: Sequence[int],
    photos: Sequence[Path],
    draws: Sequence[Arrivals],
    *,
    load: float,
    seconds: float,
) -> Measured:
    """What the servers do: the rounds one after the other, from the same load processes."""
    at = cpus if len(servers) > 1 else cpus[1:]
    offsets = [number * (seconds + PAUSE_S) for number in range(len(draws))]
    begin = time.time() + START_S
    loads = []
    for client, cpu in enumerate(at):
        arrivals = [
            (due + offset, photo) for offset, each in zip(offsets, draws, strict=True) for due, photo in each[client]
        ]
        loads.append(start_load(cpu, servers, photos, arrivals=arrivals, begin=begin))
    answers: list[dict[str, Any]] = [answer_of(each) for each in loads]
    latencies = [iter(answer["latencies_s"]) for answer in answers]
    rounds, elapsed_s, sent = [], 0.0, [0] * len(at)
    for offset, arrivals in zip(offsets, draws, strict=True):
        own = [[next(latencies[client]) for _ in each] for client, each in enumerate(arrivals)]
        ends = [
            due + took
            for each, taken in zip(arrivals, own, strict=True)
            for (due, _), took in zip(each, taken, strict=True)
        ]
        elapsed_s += max(ends) - min(due for each in arrivals for due, _ in each)
        latencies_s = [took for taken in own for took in taken]
        first = [number % len(servers) for number in sent]
        rounds.append(Round(arrivals=arrivals, begin=begin + offset, first=first, latencies_s=latencies_s))
        sent = [number + len(each) for number, each in zip(sent, arrivals, strict=True)]
    # each load saw all servers: the first one's account is as long as the others'
    used = [*answers[0]["servers"], *(answer["client"] for answer in answers if len(servers) > 1)]
    return Measured(
        load=load,
        seconds=seconds,
        rounds=rounds,
        per_s=sum(len(each.latencies_s) for each in rounds) / elapsed_s,
        busy=sum(each["loop_s"] + each["others_s"] for each in used) / (len(servers) * elapsed_s),
    )
