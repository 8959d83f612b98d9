"""A server's address and photos in; how fast it answers so many callers, as one line of JSON, out.

A process of its own, so that it does not share an interpreter with what it measures. Requests are serialised before the
clock starts and answers are not parsed: whatever can be spared is the server's.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from serving.pb.pawserve.v1 import classifier_pb2 as pb

METHODS = {"pawserve": "/pawserve.v1.Classifier/Classify", "baseline": "/baseline/Classify"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--server", choices=METHODS, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(arguments.photos.rglob("*.jpg"))[::4]]
    requests = [to_request(arguments.server, photo) for photo in photos]
    method = METHODS[arguments.server]
    print(json.dumps(asyncio.run(load(arguments.address, method, requests, arguments.callers, arguments.seconds))))


def to_request(server: str, photo: bytes) -> bytes:
    """One photo as the server wants it."""
    if server == "baseline":
        return photo
    return pb.ClassifyRequest(images=[pb.ImageInput(content=photo)]).SerializeToString()


async def load(address: str, method: str, requests: list[bytes], callers: int, seconds: float) -> dict[str, float]:
    """Let so many callers ask one request after the other, for so long."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method)
        await asyncio.gather(*(call(request, timeout=60) for request in requests[:callers]))
        latencies, elapsed = await closed_loop(call, requests, callers, seconds)
    latencies.sort()
    return {
        "images": len(latencies),
        "images_per_s": len(latencies) / elapsed,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p95_ms": 1000 * latencies[len(latencies) * 95 // 100],
    }


async def closed_loop(
    call: Callable[..., Any], requests: list[bytes], callers: int, seconds: float, pause_s: float = 0.0
) -> tuple[list[float], float]:
    """Every caller sends one request after the other, and pauses between them: each latency, and how long all took."""
    shared = itertools.cycle(requests)
    latencies: list[float] = []
    begin = time.perf_counter()

    async def ask() -> None:
        while (sent := time.perf_counter()) < begin + seconds:
            await call(next(shared), timeout=60)
            latencies.append(time.perf_counter() - sent)
            if pause_s:
                await asyncio.sleep(pause_s)

    await asyncio.gather(*(ask() for _ in range(callers)))
    return latencies, time.perf_counter() - begin


if __name__ == "__main__":
    main()
