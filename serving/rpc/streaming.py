"""Streams of requests, each of which gets its response as soon as it is known. Shared by all protocols.

A request holds one of the stream's places from before it is read until its response is written. If a client does not
read its responses, or sends faster than the model computes, the server stops reading, and the flow control of HTTP/2
slows the client down.
"""

import asyncio
import logging
from asyncio import Task
from collections import deque
from typing import Any, Protocol

import grpc

from serving.api.errors import ApiError, Code
from serving.api.in_flight import BytesInFlight
from serving.system.logs import RateLimitedLogger

MAX_IN_FLIGHT = 128
"""Most requests of one stream that are read and have no response yet."""

_logger = RateLimitedLogger(logging.getLogger(__name__), logging.WARNING)


class StreamHandler(Protocol):
    """What a service does with the requests of its streams."""

    def image_bytes(self, request: Any) -> int:
        """Bytes of the request's images."""

    async def respond(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The response, with the error if there is one; does not raise."""


class StreamProcessor:
    """All streams of a server."""

    def __init__(self, in_flight: BytesInFlight) -> None:
        self._in_flight = in_flight
        self._stopping = asyncio.Event()

    async def run(self, context: grpc.aio.ServicerContext, handler: StreamHandler) -> None:
        """Process one stream until the client ends it, or the server stops.

        Raises:
            ApiError: if the server stops; the requests that were read have their responses.
        """
        await _Stream(self._in_flight, context, handler).run(self._stopping)

    def stop(self) -> None:
        """Stop reading; streams end when the requests that were read have their responses."""
        self._stopping.set()


class _Stream:
    """One stream: one task reads, a task for each request computes, and `run` writes."""

    def __init__(self, in_flight: BytesInFlight, context: grpc.aio.ServicerContext, handler: StreamHandler) -> None:
        self._in_flight = in_flight
        self._context = context
        self._handler = handler
        self._places = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._computing: set[Task[None]] = set()
        self._responses: deque[Any] = deque()
        self._read_requests = 0
        self._changed = asyncio.Event()  # there is a response, or a task has ended

    async def run(self, stopping: asyncio.Event) -> None:
        """Process the stream; raises ApiError if the server stops."""
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._changed.set())
        stopped = asyncio.create_task(stopping.wait())
        stopped.add_done_callback(lambda _: reader.cancel())
        try:
            while not (reader.done() and not self._computing and not self._responses):
                await self._changed.wait()
                self._changed.clear()
                while self._responses:
                    await self._context.write(self._responses.popleft())
                    self._places.release()
        except grpc.aio.InternalError:  # the client has gone
            return
        except asyncio.CancelledError:
            if reader.done() and not reader.cancelled() and not stopping.is_set():
                # gRPC reports a request that it rejects as the end of the requests, and then cancels the call
                _logger.log(
                    f"a stream was cancelled after its first {self._read_requests} requests: the next one is larger "
                    "than --max-message-mib allows, which clients see as RESOURCE_EXHAUSTED, or the client left"
                )
            raise
        finally:
            for task in (reader, stopped, *self._computing):
                task.cancel()
        if not reader.cancelled():
            reader.result()
            return
        message = "the server is shutting down; requests without a response were not begun: send them again"
        raise ApiError(Code.UNAVAILABLE, "SERVER_STOPPING", message, retry_after_s=1.0)

    async def _read(self) -> None:
        """Read requests while there are places and free bytes, and start a task for each."""
        while True:
            await self._places.acquire()
            request = await self._context.read()
            if request is grpc.aio.EOF:
                return
            self._read_requests += 1
            size = self._handler.image_bytes(request)
            waiting, again = self._in_flight.waiting, False
            while not self._in_flight.admits(size):
                if again:
                    waiting.pass_on()
                await waiting.wait()
                again = True
            self._in_flight.take(size)
            task = asyncio.create_task(self._respond(request))
            self._computing.add(task)

            def done(task: Task[None], size: int = size) -> None:
                self._computing.discard(task)
                self._in_flight.release(size)
                self._changed.set()

            task.add_done_callback(done)

    async def _respond(self, request: Any) -> None:
        self._responses.append(await self._handler.respond(request, self._context))
        self._changed.set()
