"""A server that is asked for far more than it can do answers what it accepts, and rejects the rest with a retry hint.

PAWSERVE_OVERLOAD_REQUESTS sets the number of requests.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from serving.client import Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.images import RED
from tests.support.servers import counted_server
from tests.support.waiting import LIMIT_S

REQUESTS = int(os.environ.get("PAWSERVE_OVERLOAD_REQUESTS", "2000"))
AT_ONCE = 500
REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)])


@dataclass
class Outcomes:
    """Numbers of requests by their outcome."""

    answered: int = 0
    rejected: int = 0
    rejected_without_retry_hint: int = 0


async def ask(stub: pb_grpc.ClassifierStub, outcomes: Outcomes) -> None:
    try:
        await stub.Classify(REQUEST, timeout=LIMIT_S)
        outcomes.answered += 1
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        details = rpc_status.from_call(error).details
        outcomes.rejected += 1
        outcomes.rejected_without_retry_hint += not any(
            detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details
        )


async def overload(address: str) -> Outcomes:
    """Send all requests, AT_ONCE of them at any time."""
    outcomes, free = Outcomes(), asyncio.Semaphore(AT_ONCE)

    async def ask_when_free(stub: pb_grpc.ClassifierStub) -> None:
        async with free:
            await ask(stub, outcomes)

    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        await asyncio.gather(*(ask_when_free(stub) for _ in range(REQUESTS)))
    return outcomes


def test_under_overload_requests_are_answered_or_rejected_with_a_retry_hint(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=6)
    with (
        counted_server(tmp_path / "models", tmp_path / "state", "--max-queue-views", 32) as server,
        Client(server.address, timeout_s=LIMIT_S) as client,
    ):
        client.classify([RED] * 32)
        before_mib = server.resident_mib()
        outcomes = asyncio.run(overload(server.address))
        assert outcomes.answered + outcomes.rejected == REQUESTS
        assert outcomes.answered > 0
        assert outcomes.rejected > 0
        assert outcomes.rejected_without_retry_hint == 0
        assert server.resident_mib() < before_mib + 100
        assert server.counts()["rows"] == 0
        client.classify([RED] * 32)
