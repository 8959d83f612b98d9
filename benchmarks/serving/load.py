"""Put load on a server and print, as one line of JSON, how it responds.

It runs in a process of its own, so that it shares no interpreter with the server, and is the same for all servers.
`cpu_s` is its own CPU time meanwhile: what the load itself takes of the machine.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import images_of, run_json
from benchmarks.serving.calls import SERVERS, Connection, open_connections, to_probabilities, to_request

WARM_UP_S = 0.3
IMAGES = 250
MAX_IN_FLIGHT = 256


def run_load(server: str, address: str, photos: Path, *, clients: int, seconds: float) -> Any:
    """Measure a closed loop in a process of its own; returns what `closed_loop` does."""
    options = ("--server", server, "--address", address, "--photos", photos.resolve())
    return run_json("benchmarks.serving.load", *options, "--clients", clients, "--seconds", seconds)


def main() -> None:
    """Parse the arguments, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=SERVERS, required=True)
    parser.add_argument("--setting", type=json.loads, default={}, help="of a peer, as JSON")
    parser.add_argument("--address", required=True, help="HOST:PORT")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=0.0)
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--clients", type=int, help="closed loop: each sends a request when it has its response")
    load.add_argument("--rate", type=float, help="open loop: requests a second, independent of the responses")
    load.add_argument("--answers", type=int, help="print the probabilities of so many images instead")
    arguments = parser.parse_args()
    images = images_of(arguments.photos, IMAGES)
    requests = [to_request(arguments.server, arguments.setting, image) for image in images]
    json.dump(asyncio.run(_run(arguments, requests)), sys.stdout)


async def _run(arguments: argparse.Namespace, requests: list[bytes]) -> object:
    count = 1 if arguments.answers else arguments.clients or MAX_IN_FLIGHT
    connections = await open_connections(arguments.server, arguments.address, count)
    try:
        if arguments.answers:
            responses = [await connections[0].call(request) for request in requests[: arguments.answers]]
            return [to_probabilities(arguments.server, response) for response in responses]
        await closed_loop(connections[: arguments.clients or 4], requests, WARM_UP_S)
        if arguments.clients:
            return await closed_loop(connections, requests, arguments.seconds)
        return await open_loop(connections, requests, arguments.rate, arguments.seconds)
    finally:
        for connection in set(connections):
            await connection.close()


async def closed_loop(connections: list[Connection], requests: list[bytes], seconds: float) -> dict[str, float]:
    """Send one request after the other on each connection.

    Returns:
        `images`, `images_per_s`, `elapsed_s`, `cpu_s` of this process, and percentiles of the latency, `p50_ms` etc.
    """
    shared = itertools.cycle(requests)
    latencies: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()

    async def send_all(connection: Connection) -> None:
        while (sent := time.perf_counter()) < began + seconds:
            await connection.call(next(shared))
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*map(send_all, connections))
    return _summary(latencies, time.perf_counter() - began, time.process_time() - cpu)


async def open_loop(
    connections: list[Connection], requests: list[bytes], rate: float, seconds: float
) -> dict[str, float]:
    """Send requests at random times (a Poisson process, the same for all servers).

    A latency begins when the request was due, so that a server that falls behind does not slow its clients down.
    """
    clock = random.Random(0)
    idle = list(connections)
    latencies: list[float] = []
    tasks = []

    async def send(due: float, request: bytes) -> None:
        if not idle:
            raise RuntimeError(
                f"{MAX_IN_FLIGHT} requests are in flight: the server cannot answer {rate:.0f} requests a second"
            )
        connection = idle.pop()
        await connection.call(request)
        idle.append(connection)
        latencies.append(time.perf_counter() - due)

    began, cpu = time.perf_counter(), time.process_time()
    due = began
    for request in itertools.cycle(requests):
        due += clock.expovariate(rate)
        if due > began + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(due, request)))
    await asyncio.gather(*tasks)
    return _summary(latencies, time.perf_counter() - began, time.process_time() - cpu)


def _summary(latencies: list[float], elapsed_s: float, cpu_s: float) -> dict[str, float]:
    latencies.sort()
    count = len(latencies)
    percentiles = {f"p{percent}_ms": 1000 * latencies[count * percent // 100] for percent in (50, 95, 99)}
    return {"images": count, "images_per_s": count / elapsed_s, "elapsed_s": elapsed_s, "cpu_s": cpu_s, **percentiles}


if __name__ == "__main__":
    main()
