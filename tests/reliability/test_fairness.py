"""One greedy client, with 200 requests in flight, and a polite one, with one: the polite one hardly notices."""

import asyncio
import statistics
import time
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

REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", (80, 60), "red"), "JPEG"))])
IN_FLIGHT = 200
ASKED = 10
TOKENS = {"greedy": "g" * 40, "polite": "p" * 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    folder = tmp_path_factory.mktemp("fairness")
    write_bundle(folder / "models", slowness=2)
    callers = folder / "callers"
    callers.write_text("".join(f"predict {name} {token}\n" for name, token in TOKENS.items()))
    callers.chmod(0o600)
    limits = ("--max-queue-views", 192, "--auth-tokens", callers, "--max-connection-age", 0)
    with counted_server(folder / "models", folder / "state", *limits) as server:
        yield server


def channel(address: str, name: str) -> grpc.aio.Channel:
    """A connection of its own: gRPC would share one between channels of a process that are alike."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options, interceptors=token_interceptors(TOKENS[name]))


async def polite(address: str, name: str = "polite") -> list[float]:
    """How long each of some requests takes, in seconds, one after the other. Any failure is raised."""
    async with channel(address, name) as connection:
        stub = pb_grpc.ClassifierStub(connection)
        await stub.Classify(REQUEST, timeout=30)
        latencies = []
        for _ in range(ASKED):
            begin = time.monotonic()
            await stub.Classify(REQUEST, timeout=30)
            latencies.append(time.monotonic() - begin)
        return latencies


async def greedy(stub: pb_grpc.ClassifierStub, latencies: list[float], refused: list[int]) -> None:
    """Ask again as soon as there is an answer, or a refusal's delay is over."""
    while True:
        begin = time.monotonic()
        try:
            await stub.Classify(REQUEST, timeout=30)
            latencies.append(time.monotonic() - begin)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused.append(1)
            await asyncio.sleep(1)


async def both(
    address: str, *, connections: int, polite_name: str
) -> tuple[list[float], list[float], list[float], int]:
    """Latencies of the polite client alone, of it beside a greedy one, and of that; and how often that was refused."""
    alone = await polite(address, polite_name)
    latencies: list[float] = []
    refused: list[int] = []
    async with AsyncExitStack() as stack:
        stubs = [
            pb_grpc.ClassifierStub(await stack.enter_async_context(channel(address, "greedy")))
            for _ in range(connections)
        ]
        tasks = [
            asyncio.create_task(greedy(stubs[number % connections], latencies, refused)) for number in range(IN_FLIGHT)
        ]
        while len(latencies) < IN_FLIGHT:
            await asyncio.sleep(0.05)
        latencies.clear()
        beside = await polite(address, polite_name)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    return alone, beside, latencies, len(refused)


@pytest.mark.parametrize(
    ("connections", "polite_name"),
    [(1, "polite"), (20, "polite"), (1, "greedy")],
    ids=["by name", "by name, whatever the connections", "by connection, under one name"],
)
def test_a_polite_client_is_never_refused_and_waits_for_few_of_the_greedy_one_s(
    server: CountedServer, connections: int, polite_name: str
) -> None:
    alone, beside, others, refused = asyncio.run(both(server.address, connections=connections, polite_name=polite_name))
    print(
        f"\npolite alone {statistics.median(alone) * 1000:.0f} ms, beside {statistics.median(beside) * 1000:.0f} ms "
        f"(worst {max(beside) * 1000:.0f}); greedy {statistics.median(others) * 1000:.0f} ms, refused {refused} times"
    )
    # Served in the order of arrival, it would wait as long as the greedy client does. It waits for a tenth of that, but
    # on a busy machine both wait for other programs too.
    assert statistics.median(beside) < statistics.median(others) / 1.5
    assert refused > 0  # the greedy one met its share, and the polite one still found a place: else it had raised
