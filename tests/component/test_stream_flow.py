"""Flow control of streams: what the server reads while a client does not read."""

import asyncio
from typing import Any

import grpc
import pytest

from serving.api.in_flight import BytesInFlight
from serving.rpc.streaming import MAX_IN_FLIGHT, StreamProcessor


class Echo:
    """Each response is its request, which is one of ten bytes."""

    def image_bytes(self, request: Any) -> int:
        return 10

    async def respond(self, request: Any, context: Any) -> Any:
        return request


class UnreadStream:
    """A client that sends as fast as the server reads, and reads nothing until `reads` is set."""

    def __init__(self, requests: int) -> None:
        self._requests = iter(range(requests))
        self.taken = 0
        self.reads = asyncio.Event()
        self.written: list[int] = []

    async def read(self) -> Any:
        await asyncio.sleep(0)
        number = next(self._requests, None)
        if number is None:
            return grpc.aio.EOF
        self.taken += 1
        return number

    async def write(self, response: int) -> None:
        await self.reads.wait()
        self.written.append(response)


async def idle() -> None:
    """Let the tasks go on until each of them waits."""
    for _ in range(20 * MAX_IN_FLIGHT):
        await asyncio.sleep(0)


def test_at_most_a_stream_s_places_are_read_before_a_response_is_taken() -> None:
    async def test() -> None:
        client = UnreadStream(10 * MAX_IN_FLIGHT)
        run = asyncio.create_task(StreamProcessor(BytesInFlight(10**6)).run(client, Echo()))  # type: ignore[arg-type]
        await idle()
        assert client.taken == MAX_IN_FLIGHT
        client.reads.set()
        await run
        assert sorted(client.written) == list(range(10 * MAX_IN_FLIGHT))

    asyncio.run(test())


@pytest.mark.parametrize("limit", [10, 50])
def test_no_more_bytes_are_computed_at_once_than_the_limit(limit: int) -> None:
    class Blocked(Echo):
        computing = most = 0

        async def respond(self, request: Any, context: Any) -> Any:
            self.computing += 1
            self.most = max(self.most, self.computing)
            await asyncio.sleep(0)
            self.computing -= 1
            return request

    async def test() -> None:
        client, handler = UnreadStream(300), Blocked()
        client.reads.set()
        await StreamProcessor(BytesInFlight(limit)).run(client, handler)  # type: ignore[arg-type]
        assert sorted(client.written) == list(range(300))
        assert handler.most <= limit / 10

    asyncio.run(test())
