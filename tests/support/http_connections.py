"""An HTTP server in the test's own event loop, and a client that sends it any bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from serving.api.access import AccessControl
from serving.api.in_flight import BytesInFlight
from serving.web.bodies import BodyLimits, read_body
from serving.web.endpoints import Endpoint, EndpointContext
from serving.web.http_server import HttpServer
from serving.web.settings import HttpLimits
from tests.support.waiting import LIMIT_S


class Answers:
    """An application whose requests a test can hold."""

    def __init__(self, limits: HttpLimits) -> None:
        self.release = asyncio.Event()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.codes: list[str] = []
        self._bodies = BodyLimits(limits.max_body_bytes, BytesInFlight(limits.max_bodies_bytes))

    def app(self) -> Router:
        context = EndpointContext(AccessControl(None), [self])
        call = "/pawserve.v1.Classifier/Classify"
        return Router(
            [
                Route("/hello", Endpoint(context, "GET /hello", call, self.hello), methods=["GET"]),
                Route("/echo", Endpoint(context, "POST /echo", call, self.echo), methods=["POST"]),
                Route("/hold", Endpoint(context, "GET /hold", call, self.hold), methods=["GET"]),
                Route("/large", Endpoint(context, "GET /large", call, self.large), methods=["GET"]),
            ]
        )

    async def hello(self, request: Request) -> Response:
        return Response("hello")

    async def echo(self, request: Request) -> Response:
        async with read_body(request, self._bodies) as body:
            return Response(str(len(body)))

    async def hold(self, request: Request) -> Response:
        self.begun.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response("held")

    async def large(self, request: Request) -> Response:
        return Response(bytes(50_000_000))

    def began(self, call: Any, metadata: Any) -> None:
        """Of a CallObserver."""

    def ended(self, call: Any, code: str, seconds: float) -> None:
        """Of a CallObserver."""
        self.codes.append(code)


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes and read one response."""
        self.writer.write(content)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and body of the next response."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def is_closed(self) -> bool:
        """Wait until the server has closed the connection without another byte."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def serving(limits: HttpLimits) -> AsyncIterator[tuple[Answers, HttpServer, int]]:
    answers = Answers(limits)
    server = HttpServer(answers.app(), limits)
    port = int((await server.listen("127.0.0.1:0", None)).rpartition(":")[2])
    try:
        yield answers, server, port
    finally:
        answers.release.set()
        await server.drain(LIMIT_S, asyncio.Event())


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
