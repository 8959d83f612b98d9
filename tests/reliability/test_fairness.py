"""A client with one request at a time is never rejected beside a greedy one with 200 requests in flight."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import grpc
import pytest
from PIL import Image

from serving.client.channel import token_interceptors
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.images import encoded
from tests.support.servers import CountedServer, counted_server, write_clients
from tests.support.waiting import LIMIT_S

REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))])
IN_FLIGHT = 200
POLITE_REQUESTS = 10
TOKENS = {"greedy": "g" * 40, "polite": "p" * 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    folder = tmp_path_factory.mktemp("fairness")
    write_bundle(folder / "models", slowness=2)
    lines = (f"predict {name} {token}\n" for name, token in TOKENS.items())
    clients = write_clients(folder / "clients", "".join(lines))
    limits = ("--max-queue-views", 100, "--auth-tokens", clients, "--max-connection-age", 0)
    with counted_server(folder / "models", folder / "state", *limits) as server:
        yield server


def channel(address: str, name: str) -> grpc.aio.Channel:
    """A connection of its own; gRPC would share one between equal channels of a process."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options, interceptors=token_interceptors(TOKENS[name]))


class GreedyClient:
    """Calls again as soon as it has a response, or the delay after a rejection is over."""

    def __init__(self) -> None:
        self.rejected = asyncio.Event()

    async def run(self, stub: pb_grpc.ClassifierStub) -> None:
        while True:
            try:
                await stub.Classify(REQUEST, timeout=LIMIT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self.rejected.set()
                await asyncio.sleep(1)


async def run_both(address: str, *, connections: int, polite_name: str) -> None:
    """Run the polite client beside the greedy one, whose requests fill the queue; raises if a polite request fails."""
    client = GreedyClient()
    async with AsyncExitStack() as stack:
        stubs = [
            pb_grpc.ClassifierStub(await stack.enter_async_context(channel(address, "greedy")))
            for _ in range(connections)
        ]
        tasks = [asyncio.create_task(client.run(stubs[number % connections])) for number in range(IN_FLIGHT)]
        polite = pb_grpc.ClassifierStub(await stack.enter_async_context(channel(address, polite_name)))
        await asyncio.wait_for(client.rejected.wait(), LIMIT_S)
        for _ in range(POLITE_REQUESTS):
            await polite.Classify(REQUEST, timeout=LIMIT_S)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


@pytest.mark.parametrize(
    ("connections", "polite_name"),
    [(1, "polite"), (20, "polite"), (1, "greedy")],
    ids=["by name", "by name, whatever the connections", "by connection, under one name"],
)
def test_a_polite_client_is_never_rejected_beside_a_greedy_one(
    server: CountedServer, connections: int, polite_name: str
) -> None:
    asyncio.run(run_both(server.address, connections=connections, polite_name=polite_name))
