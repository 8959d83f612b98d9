"""Connections of the HTTP server: slow, silent, greedy and vanishing clients, and the drain."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest
from starlette.routing import Router

from serving.web.http_server import HttpServer
from serving.web.settings import HttpLimits
from tests.support.http_connections import connected, serving
from tests.support.waiting import LIMIT_S

QUICK = HttpLimits(
    head_s=0.2,
    body_s=0.3,
    body_bytes_per_s=1_000_000,
    unread_s=0.3,
    linger_s=0.2,
    idle_s=60,
    check_s=0.02,
    max_connections=20,
    max_body_bytes=1_000_000,
)
NEVER = HttpLimits(check_s=0.02, max_body_bytes=1_000_000, drain_idle_s=LIMIT_S)
"""Limits that no test exceeds."""
HELLO = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /hel", b"GET /hello HTTP/1.1\r\nHost: localhost\r\nA: b"])
def test_a_client_that_does_not_finish_its_headers_is_disconnected(sent: bytes) -> None:
    async def run() -> None:
        async with serving(QUICK) as (_, _, port), connected(port) as client:
            client.writer.write(sent)
            assert await client.is_closed()

    asyncio.run(run())


def test_headers_that_arrive_byte_by_byte_do_not_gain_time() -> None:
    async def run() -> None:
        async with serving(QUICK) as (_, _, port), connected(port) as client:

            async def drip() -> None:
                client.writer.write(b"GET /hello HTTP/1.1\r\n")
                while True:
                    client.writer.write(b"A: b\r\n")
                    await asyncio.sleep(0.01)

            dripping = asyncio.create_task(drip())
            assert await client.is_closed()
            dripping.cancel()

    asyncio.run(run())


def test_hundreds_of_idle_connections_do_not_block_others() -> None:
    async def run() -> None:
        async with serving(replace(QUICK, max_connections=400)) as (_, _, port):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
            async with connected(port) as client:
                assert (await client.ask(HELLO))[2] == b"hello"
            for _, writer in silent:
                writer.close()

    asyncio.run(run())


def test_connections_beyond_the_limit_are_closed_and_its_places_become_free_again() -> None:
    async def run() -> None:
        limits = replace(QUICK, max_connections=3)
        async with serving(limits) as (_, _, port):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            async with connected(port) as rejected:
                assert await rejected.is_closed()
            for reader, _ in silent:
                await asyncio.wait_for(reader.read(), LIMIT_S)
            async with connected(port) as client:
                assert (await client.ask(HELLO))[2] == b"hello"
            for _, writer in silent:
                writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "head",
    [
        b"GET /hello?" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nA: " + b"b" * 100_000,
        b"GET /hello HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
    ids=["path", "header", "headers"],
)
def test_large_headers_are_rejected(head: bytes) -> None:
    async def run() -> None:
        async with serving(NEVER) as (_, _, port), connected(port) as client:
            status, headers, content = await client.ask(head)
            assert (status, headers["connection"]) == (431, "close")
            assert json.loads(content)["status"] == 431
            assert await client.is_closed()

    asyncio.run(run())


@pytest.mark.parametrize(
    "sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /hello HTTP/1.1\r\nA\r\n\r\n"]
)
def test_what_is_not_http_is_rejected(sent: bytes) -> None:
    async def run() -> None:
        async with serving(NEVER) as (_, _, port), connected(port) as client:
            assert (await client.ask(sent))[0] == 400
            assert await client.is_closed()

    asyncio.run(run())


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_a_body_that_stops_arriving_is_answered_with_408(framing: bytes) -> None:
    async def run() -> None:
        async with serving(QUICK) as (answers, _, port), connected(port) as client:
            status, _, content = await client.ask(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n1\r\na")
            assert (status, json.loads(content)["reason"]) == (408, "BODY_TIMEOUT")
            assert await client.is_closed()
            assert answers.codes == ["DEADLINE_EXCEEDED"]

    asyncio.run(run())


def test_a_body_that_arrives_steadily_may_take_longer() -> None:
    async def run() -> None:
        limits = replace(QUICK, body_bytes_per_s=1000)
        async with serving(limits) as (_, _, port), connected(port) as client:
            client.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
            for _ in range(20):
                client.writer.write(bytes(1000))
                await asyncio.sleep(0.03)
            assert (await client.answer())[2] == b"20000"

    asyncio.run(run())


def test_a_body_that_is_too_large_is_rejected_before_it_is_read_and_the_client_sees_why() -> None:
    async def run() -> None:
        async with serving(QUICK) as (_, _, port), connected(port) as client:
            client.writer.write(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + bytes(500_000)
            )
            status, _, content = await client.answer()
            assert (status, json.loads(content)["reason"]) == (413, "BODY_TOO_LARGE")
            assert await client.is_closed()

    asyncio.run(run())


def test_a_client_that_expects_100_continue_need_not_send_a_body_that_is_rejected() -> None:
    async def run() -> None:
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: "
        async with serving(NEVER) as (_, _, port), connected(port) as client:
            assert (await client.ask(head + b"2000000\r\n\r\n"))[0] == 413
        async with serving(NEVER) as (_, _, port), connected(port) as client:
            client.writer.write(head + b"3\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.ask(b"abc"))[2] == b"3"

    asyncio.run(run())


def test_a_client_that_reads_no_response_is_disconnected() -> None:
    async def run() -> None:
        async with serving(QUICK) as (answers, _, port):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(sock, HELLO.replace(b"hello", b"large"))
            async with asyncio.timeout(LIMIT_S):
                while not answers.codes:
                    await asyncio.sleep(0.01)
            sock.close()

    asyncio.run(run())


def test_a_request_whose_client_leaves_is_cancelled() -> None:
    async def run() -> None:
        async with serving(NEVER) as (answers, _, port):
            async with connected(port) as client:
                client.writer.write(HELLO.replace(b"hello", b"hold"))
                await answers.begun.wait()
            await asyncio.wait_for(answers.cancelled.wait(), LIMIT_S)
            async with asyncio.timeout(LIMIT_S):
                while not answers.codes:
                    await asyncio.sleep(0)
            assert answers.codes == ["CANCELLED"]

    asyncio.run(run())


def test_the_drain_answers_requests_in_flight_and_those_on_open_connections() -> None:
    async def run() -> None:
        async with serving(NEVER) as (answers, server, port), connected(port) as busy, connected(port) as idle:
            assert (await idle.ask(HELLO))[2] == b"hello"
            busy.writer.write(HELLO.replace(b"hello", b"hold"))
            await answers.begun.wait()
            drained = asyncio.create_task(server.drain(LIMIT_S, asyncio.Event()))
            await asyncio.sleep(0)
            status, headers, _ = await idle.ask(HELLO)
            assert (status, headers["connection"]) == (200, "close")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            answers.release.set()
            assert (await busy.answer())[2] == b"held"
            await asyncio.wait_for(drained, LIMIT_S)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["grace", "second signal"])
def test_what_is_in_flight_after_the_grace_period_is_cancelled(how: str) -> None:
    async def run() -> None:
        async with serving(NEVER) as (answers, server, port), connected(port) as client:
            client.writer.write(HELLO.replace(b"hello", b"hold"))
            await answers.begun.wait()
            cut_short = asyncio.Event()
            draining = asyncio.create_task(server.drain(0.05 if how == "grace" else LIMIT_S, cut_short))
            if how != "grace":
                cut_short.set()
            await asyncio.wait_for(draining, LIMIT_S)
            assert answers.cancelled.is_set()
            assert await client.is_closed()

    asyncio.run(run())


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    async def run() -> None:
        async with serving(NEVER) as (_, _, port):
            second = HttpServer(Router(), NEVER)
            with pytest.raises(OSError, match="in use") as caught:
                await second.listen(f"127.0.0.1:{port}", None)
            assert caught.value.filename == f"127.0.0.1:{port}"

    asyncio.run(run())
