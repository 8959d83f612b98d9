"""A client with one request in flight is served soon beside a client with 200 requests in flight."""

import asyncio
import statistics
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
from tests.support.servers import CountedServer, counted_server
from tests.support.waiting import LIMIT_S

REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))])
IN_FLIGHT = 200
ASKED = 10
TOKENS = {"greedy": "g" * 40, "polite": "p" * 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    folder = tmp_path_factory.mktemp("fairness")
    write_bundle(folder / "models", slowness=2)
    clients = folder / "clients"
    clients.write_text("".join(f"predict {name} {token}\n" for name, token in TOKENS.items()))
    clients.chmod(0o600)
    limits = ("--max-queue-views", 192, "--auth-tokens", clients, "--max-connection-age", 0)
    with counted_server(folder / "models", folder / "state", *limits) as server:
        yield server


def channel(address: str, name: str) -> grpc.aio.Channel:
    """A channel with a connection of its own: gRPC shares connections between equal channels of a process."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options, interceptors=token_interceptors(TOKENS[name]))


async def polite(address: str, name: str, answered: list[int]) -> list[int]:
    """Send requests one after the other; the number of answers to the greedy client while each was in flight.

    Raises the error of any request that fails.
    """
    overtaken = []
    async with channel(address, name) as connection:
        stub = pb_grpc.ClassifierStub(connection)
        await stub.Classify(REQUEST, timeout=LIMIT_S)
        for _ in range(ASKED):
            before = len(answered)
            await stub.Classify(REQUEST, timeout=LIMIT_S)
            overtaken.append(len(answered) - before)
    return overtaken


async def greedy(stub: pb_grpc.ClassifierStub, answered: list[int], refused: list[int]) -> None:
    """Send the next request after each answer, or a while after each refusal."""
    while True:
        try:
            await stub.Classify(REQUEST, timeout=LIMIT_S)
            answered.append(1)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused.append(1)
            await asyncio.sleep(1)


async def both(address: str, *, connections: int, polite_name: str) -> tuple[list[int], int]:
    """Run both clients; see `polite` for the first result. The second is the number of refusals of the greedy one."""
    answered: list[int] = []
    refused: list[int] = []
    async with AsyncExitStack() as stack:
        stubs = [
            pb_grpc.ClassifierStub(await stack.enter_async_context(channel(address, "greedy")))
            for _ in range(connections)
        ]
        tasks = [
            asyncio.create_task(greedy(stubs[number % connections], answered, refused)) for number in range(IN_FLIGHT)
        ]
        while len(answered) < IN_FLIGHT:
            await asyncio.sleep(0.05)
        overtaken = await polite(address, polite_name, answered)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    return overtaken, len(refused)


@pytest.mark.parametrize(
    ("connections", "polite_name"),
    [(1, "polite"), (20, "polite"), (1, "greedy")],
    ids=["by name", "by name, whatever the connections", "by connection, under one name"],
)
def test_a_polite_client_is_never_refused_and_waits_for_few_requests_of_a_greedy_one(
    server: CountedServer, connections: int, polite_name: str
) -> None:
    overtaken, refused = asyncio.run(both(server.address, connections=connections, polite_name=polite_name))
    # in the order of arrival it would wait for nearly all of the greedy client's requests
    assert statistics.median(overtaken) < IN_FLIGHT / 4
    assert refused > 0  # the greedy client met its quota; the polite one raises if it is refused
