"""Overload with ten times the capacity: admitted requests meet their deadlines, the others are rejected with a hint.

PAWSERVE_OVERLOAD_S is the duration, in seconds.
"""

import asyncio
import os
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.images import encoded
from tests.support.servers import CountedServer, counted_server
from tests.support.waiting import LIMIT_S

SECONDS = float(os.environ.get("PAWSERVE_OVERLOAD_S", "5"))
DEADLINE_S = 1.0
REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))])


@dataclass
class Outcome:
    """The outcomes of all requests."""

    answered_s: list[float] = field(default_factory=list)
    rejected_s: list[float] = field(default_factory=list)
    without_retry: int = 0
    too_late: int = 0
    resident_mib: list[float] = field(default_factory=list)


async def ask(stub: pb_grpc.ClassifierStub, outcome: Outcome) -> None:
    begin = time.monotonic()
    try:
        await stub.Classify(REQUEST, timeout=DEADLINE_S)
        outcome.answered_s.append(time.monotonic() - begin)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            outcome.too_late += 1
            return
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        outcome.rejected_s.append(time.monotonic() - begin)
        details = rpc_status.from_call(error).details
        outcome.without_retry += not any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)


async def capacity(stub: pb_grpc.ClassifierStub) -> float:
    """Responses per second to 8 clients that call again at once."""
    responses = 0
    until = time.monotonic() + 2

    async def client() -> None:
        nonlocal responses
        while time.monotonic() < until:
            await stub.Classify(REQUEST, timeout=LIMIT_S)
            responses += 1

    await asyncio.gather(*(client() for _ in range(8)))
    return responses / 2


async def one_by_one(stub: pb_grpc.ClassifierStub) -> float:
    """Median latency of ten requests, in seconds."""
    latencies = []
    for _ in range(10):
        begin = time.monotonic()
        await stub.Classify(REQUEST, timeout=LIMIT_S)
        latencies.append(time.monotonic() - begin)
    return statistics.median(latencies)


async def overload(server: CountedServer, seed: int) -> tuple[Outcome, float, float, float, float]:
    """The outcomes; requests per second; latency before and after; MiB before."""
    rng = random.Random(seed)
    outcome = Outcome()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        rate = 10 * await capacity(stub)
        before_s, before_mib = await one_by_one(stub), server.resident_mib()
        tasks: set[asyncio.Task[None]] = set()
        begin = due = time.monotonic()
        while (now := time.monotonic()) < begin + SECONDS:
            while due <= now:  # arrivals of independent clients: a Poisson process
                due += rng.expovariate(rate)
                tasks.add(asyncio.create_task(ask(stub, outcome)))
            if not outcome.resident_mib or rng.random() < 0.01:
                outcome.resident_mib.append(server.resident_mib())
            await asyncio.sleep(0.002)
        await asyncio.sleep(2)
        after_s = await one_by_one(stub)
        await asyncio.gather(*tasks)
        outcome.resident_mib.append(server.resident_mib())
    return outcome, rate, before_s, after_s, before_mib


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("seed", [0])
def test_ten_times_the_capacity(tmp_path: Path, seed: int) -> None:
    write_bundle(tmp_path / "models", slowness=6)
    with counted_server(tmp_path / "models", tmp_path / "state") as server:
        outcome, rate, before_s, after_s, before_mib = asyncio.run(overload(server, seed))
        assert server.counts()["rows"] == 0
    answered, rejected = len(outcome.answered_s), len(outcome.rejected_s)
    rejected_ms = statistics.median(outcome.rejected_s) * 1000
    most_mib = max(outcome.resident_mib)
    print(
        f"\n{rate:.0f} requests a second for {SECONDS:.0f} s: {answered} answered, {rejected} rejected (median "
        f"{rejected_ms:.1f} ms), {outcome.too_late} too late; latency {before_s * 1000:.0f} ms before, "
        f"{after_s * 1000:.0f} ms after; {before_mib:.0f} MiB before, at most {most_mib:.0f}"
    )
    assert rejected > answered > 0
    # The first ones may be too late, since the server learns from them how long requests take. Without its estimate
    # nearly all would be: the queue has room for many seconds of work.
    assert outcome.too_late < answered
    assert outcome.without_retry == 0
    assert most_mib < before_mib + 100
    assert after_s < 3 * before_s + 0.3
