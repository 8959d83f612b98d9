"""The benchmarks' load generator: requests that servers understand, and responses however they arrive."""

import asyncio

import pytest

from benchmarks.serving.calls import open_calls, to_probabilities, to_request
from tests.support.images import RED
from tests.support.servers import HttpServerProcess
from tests.support.waiting import LIMIT_S

WHOLE = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[0.1,0.9]"]
IN_PIECES = [b"HTTP/1.1 200 OK\r\nconte", b"nt-length: 9\r\n\r", b"\n[0.1", b",0.9]"]
CHUNKED = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[0.1,", b"\r\n4\r\n0.9]\r\n", b"0\r\n\r\n"]


def send_twice(pieces: list[bytes]) -> list[bytes]:
    """The bodies of two responses over one connection to a server that sends these pieces."""

    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"image" in await reader.read(1000):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async def send() -> list[bytes]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            request = to_request("bentoml", {"MAX_BATCH_SIZE": "1"}, b"image")
            try:
                async with open_calls("bentoml", address, 1) as [call]:
                    return [await asyncio.wait_for(call(request), LIMIT_S) for _ in range(2)]
            finally:
                await closed.wait()

    return asyncio.run(send())


@pytest.mark.parametrize("pieces", [WHOLE, IN_PIECES, CHUNKED], ids=["whole", "in pieces", "chunked"])
def test_a_response_is_read_however_it_arrives(pieces: list[bytes]) -> None:
    bodies = send_twice(pieces)
    assert [to_probabilities("bentoml", body) for body in bodies] == [[0.9, 0.1]] * 2


def test_an_error_is_not_counted_as_a_response() -> None:
    with pytest.raises(RuntimeError, match="503"):
        send_twice([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"])


def test_the_request_to_triton_over_http_is_one_of_the_open_inference_protocol(server: HttpServerProcess) -> None:
    request = to_request("triton-http", {}, RED).replace(b"/models/pets/", b"/models/colours/")

    async def send() -> list[float]:
        async with open_calls("triton-http", server.url.removeprefix("http://"), 1) as [call]:
            return to_probabilities("triton-http", await call(request))

    probabilities = asyncio.run(send())
    assert len(probabilities) == 3
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities[0] > 0.5
