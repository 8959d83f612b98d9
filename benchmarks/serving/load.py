"""Load on a server, the same for all servers, from a process of its own that shares no interpreter with the server."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import images_of
from benchmarks.processes import call_in_process
from benchmarks.serving.calls import Call, call_several_times, open_calls, to_probabilities, to_request

WARM_UP_S = 0.3
IMAGES = 250
MAX_IN_FLIGHT = 256


def run_load(server: str, address: str, photos: Path, **load: Any) -> Any:
    """Run `measure` in a process of its own."""
    return call_in_process(measure, server, address, photos, **load)


def measure(
    server: str,
    address: str,
    photos: Path,
    *,
    setting: Mapping[str, str] | None = None,
    clients: int = 0,
    rate: float = 0.0,
    answers: int = 0,
    views: int = 1,
    adaptive: bool = False,
    at_once: int = 1,
    seconds: float = 0.0,
) -> Any:
    """Send images to a server; exactly one of `clients`, `rate` and `answers` is given.

    Args:
        server: one of `calls.GRPC_METHODS`, or pawserve-http, triton-http, litserve or bentoml.
        address: HOST:PORT.
        photos: a folder of JPEGs.
        setting: a peer's.
        clients: closed loop: each sends a request when it has its response.
        rate: open loop: requests a second, independent of the responses.
        answers: only classify so many images.
        views: of each image in a request to pawserve.
        adaptive: whether to compute these only where they are needed.
        at_once: concurrent requests for the same image.
        seconds: of the load, after a warm-up.

    Returns:
        With `answers` the probabilities of each image; otherwise `images`, `warm_up_images`, `images_per_s`,
        `elapsed_s`, `cpu_s` of this process, which is what the load itself takes of the machine, and percentiles of the
        latency, `p50_ms` etc.
    """
    images = images_of(photos, IMAGES)
    requests = [to_request(server, setting or {}, image, views, adaptive=adaptive) for image in images]

    async def run() -> Any:
        async with open_calls(server, address, 1 if answers else clients or MAX_IN_FLIGHT) as calls:
            if answers:
                return [to_probabilities(server, await calls[0](request)) for request in requests[:answers]]
            if at_once > 1:
                calls = [partial(call_several_times, call, at_once) for call in calls]
            warm_up = await closed_loop(calls[: clients or 4], requests, WARM_UP_S)
            found = await (
                closed_loop(calls, requests, seconds) if clients else open_loop(calls, requests, rate, seconds)
            )
            return found | {"warm_up_images": warm_up["images"]}

    return asyncio.run(run())


async def closed_loop(calls: Iterable[Call], requests: list[bytes], seconds: float) -> dict[str, float]:
    """Send one request after the other with each call."""
    shared = itertools.cycle(requests)
    latencies: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()

    async def send_all(call: Call) -> None:
        while (sent := time.perf_counter()) < began + seconds:
            await call(next(shared))
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*map(send_all, calls))
    return _summary(latencies, time.perf_counter() - began, time.process_time() - cpu)


async def open_loop(calls: Iterable[Call], requests: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Send requests at random times (a Poisson process, the same for all servers).

    A latency begins when the request was due, so that a server that falls behind does not slow its clients down.
    """
    clock = random.Random(0)
    idle = list(calls)
    latencies: list[float] = []
    tasks = []

    async def send(due: float, request: bytes) -> None:
        if not idle:
            raise RuntimeError(
                f"{MAX_IN_FLIGHT} requests are in flight: the server cannot answer {rate:.0f} requests a second"
            )
        call = idle.pop()
        await call(request)
        idle.append(call)
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
