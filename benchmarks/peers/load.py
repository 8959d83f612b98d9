"""A server's port and photos in; how it answers so many callers, or so many requests a second, as a line of JSON out.

A process of its own, the same for all servers. `cpu_s` is its own time on the CPUs while the clock runs, by its
process's clock: what the load itself takes of the machine.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from pathlib import Path

from benchmarks.peers.calls import Caller, open_callers, to_probabilities, to_request

WARM_UP_S = 0.3
MOST_IN_FLIGHT = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--setting", type=json.loads, default={})
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--callers", type=int, help="closed loop: each sends when it has its answer")
    load.add_argument("--rate", type=float, help="open loop: requests a second, whatever the answers")
    load.add_argument("--answers", type=int, help="print the probabilities of so many photos instead")
    arguments = parser.parse_args()
    paths = sorted(arguments.photos.rglob("*.jpg"))
    photos = [path.read_bytes() for path in paths[:: max(1, len(paths) // 250)]]
    requests = [to_request(arguments.peer, arguments.setting, photo) for photo in photos]
    json.dump(asyncio.run(_run(arguments, requests)), sys.stdout)


async def _run(arguments: argparse.Namespace, requests: list[bytes]) -> object:
    if arguments.answers:
        [caller] = await open_callers(arguments.peer, arguments.port, 1)
        answers = [await caller.call(request) for request in requests[: arguments.answers]]
        await caller.close()
        return [to_probabilities(arguments.peer, answer) for answer in answers]
    callers = await open_callers(arguments.peer, arguments.port, arguments.callers or MOST_IN_FLIGHT)
    await closed_loop(callers[: arguments.callers or 4], requests, WARM_UP_S)
    if arguments.callers:
        result = await closed_loop(callers, requests, arguments.seconds)
    else:
        result = await open_loop(callers, requests, arguments.rate, arguments.seconds)
    for caller in set(callers):
        await caller.close()
    return result


async def closed_loop(callers: list[Caller], requests: list[bytes], seconds: float) -> dict[str, float]:
    """Every caller sends one request after the other."""
    shared = itertools.cycle(requests)
    latencies: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()

    async def ask(caller: Caller) -> None:
        while (sent := time.perf_counter()) < begin + seconds:
            await caller.call(next(shared))
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*map(ask, callers))
    return _summary(latencies, time.perf_counter() - begin, time.process_time() - cpu)


async def open_loop(callers: list[Caller], requests: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Requests arrive at random (a Poisson process, the same for all servers).

    A latency runs from when the request was due: a server that falls behind does not slow its callers down.
    """
    clock = random.Random(0)
    idle = list(callers)
    latencies: list[float] = []
    tasks = []

    async def ask(due: float, request: bytes) -> None:
        if not idle:
            raise RuntimeError(
                f"{MOST_IN_FLIGHT} requests are in flight: {rate:.0f} a second is more than the server can"
            )
        caller = idle.pop()
        await caller.call(request)
        idle.append(caller)
        latencies.append(time.perf_counter() - due)

    begin, cpu = time.perf_counter(), time.process_time()
    due = begin
    for request in itertools.cycle(requests):
        due += clock.expovariate(rate)
        if due > begin + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(due, request)))
    await asyncio.gather(*tasks)
    return _summary(latencies, time.perf_counter() - begin, time.process_time() - cpu)


def _summary(latencies: list[float], elapsed: float, cpu_s: float) -> dict[str, float]:
    latencies.sort()
    at = {f"p{share}_ms": 1000 * latencies[len(latencies) * share // 100] for share in (50, 95, 99)}
    count = len(latencies)
    return {"images": count, "images_per_s": count / elapsed, "elapsed_s": elapsed, "cpu_s": cpu_s, **at}


if __name__ == "__main__":
    main()
