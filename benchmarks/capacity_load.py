"""Servers, photos and when to send which, as JSON on standard input; how they answered, as JSON out.

A process of its own, on a CPU of its own or not: what it takes itself is told too, so that a model can account for it.
Closed loop: callers that send when they have their answer. Open loop: requests are sent when they are due, to the
servers by turns, and a latency runs from when the request was due.
"""

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.serving.load import METHODS, closed_loop
from serving.pb.pawserve.v1 import classifier_pb2 as pb

WARM_UP_REQUESTS = 20
WARM_UP_PAUSE_S = 0.1

Call = Callable[..., Any]


def main() -> None:
    job = json.load(sys.stdin)
    photos = [Path(path).read_bytes() for path in job["photos"]]
    gc.freeze()
    json.dump(uvloop.run(run(job, photos)), sys.stdout)


async def run(job: dict[str, Any], photos: list[bytes]) -> dict[str, Any]:
    """Send what the job says."""
    channels = [grpc.aio.insecure_channel(address) for address in job["servers"]]
    calls = [channel.unary_unary(METHODS["pawserve"]) for channel in channels]
    size = job["pictures"]
    groups = [[(at + i) % len(photos) for i in range(size)] for at in range(0, len(photos), size)]
    requests = [to_request([photos[i] for i in group]) for group in groups]
    for call in calls:
        for request in requests[:WARM_UP_REQUESTS]:
            answer = await call(request, timeout=60)
    await asyncio.sleep(WARM_UP_PAUSE_S)
    own = threads(os.getpid())
    servers = [threads(pid) for pid in job["pids"]]
    if "callers" in job:
        latencies, elapsed_s = await closed_loop(calls[0], requests, job["callers"], job["seconds"], job["pause_s"])
    else:
        latencies, elapsed_s = await open_loop(calls, requests, job["arrivals"], job["begin"])
    result = {
        "latencies_s": latencies,
        "elapsed_s": elapsed_s,
        "client": used(own, threads(os.getpid()), os.getpid()),
        "servers": [used(before, threads(pid), pid) for before, pid in zip(servers, job["pids"], strict=True)],
        "request_bytes": sum(map(len, requests)) / len(requests),
        "answer_bytes": len(answer),
    }
    for channel in channels:
        await channel.close()
    return result


async def open_loop(
    calls: list[Call], requests: list[bytes], arrivals: list[tuple[float, int]], begin_at: float
) -> tuple[list[float], float]:
    """Each request when it is due: seconds after `begin_at`, a time of the system's clock that all clients share."""
    latencies = [0.0] * len(arrivals)
    begin = time.perf_counter() + begin_at - time.time()
    turns = itertools.cycle(calls)
    tasks = []

    async def ask(number: int, call: Call, request: bytes, due: float) -> None:
        await call(request, timeout=60)
        latencies[number] = time.perf_counter() - due

    for number, (due_s, index) in enumerate(arrivals):
        due = begin + due_s
        if (wait_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(ask(number, next(turns), requests[index], due)))
    await asyncio.gather(*tasks)
    return latencies, time.perf_counter() - begin


def to_request(photos: list[bytes]) -> bytes:
    """One request with these photos."""
    return bytes(pb.ClassifyRequest(images=[pb.ImageInput(content=photo) for photo in photos]).SerializeToString())


def threads(pid: int) -> dict[str, float]:
    """CPU seconds that each thread of a process had (proc(5))."""
    folders = Path(f"/proc/{pid}/task").iterdir()
    return {folder.name: int((folder / "schedstat").read_text().split()[0]) / 1e9 for folder in folders}


def used(before: dict[str, float], after: dict[str, float], pid: int) -> dict[str, float]:
    """CPU seconds of the first thread, which runs the event loop, and of the others."""
    seconds = {thread: cpu_s - before.get(thread, 0.0) for thread, cpu_s in after.items()}
    return {"loop_s": seconds.pop(str(pid)), "others_s": sum(seconds.values())}


if __name__ == "__main__":
    main()
