"""A stream of requests in; their answers, each as soon as it is known, out. Shared by all protocols.

A request holds one of the stream's places from before it is read until its answer is written. So a caller who does not
read its answers, or who sends faster than the model computes, is not read any further: HTTP/2's flow control then holds
it back, and nothing gathers here.
"""

import asyncio
from asyncio import Task
from collections import deque
from typing import Any, Protocol

import grpc

from serving.rpc.classification import ClassificationService
from serving.rpc.errors import ApiError

MAX_IN_FLIGHT = 128
"""Requests of one stream that are read and not answered."""


class Answering(Protocol):
    """What answers the requests of streams."""

    def size(self, request: Any) -> int:
        """Bytes of its pictures."""

    async def answer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Its answer; whatever is wrong with a request is its answer too, so nothing is raised."""


class StreamProcessor:
    """All streams of a server, which end when it stops."""

    def __init__(self, pictures: ClassificationService) -> None:
        self._pictures = pictures
        self._stopping = asyncio.Event()

    async def run(self, context: grpc.aio.ServicerContext, answering: Answering) -> None:
        """Answer one stream until its caller has said all, or the server stops.

        Raises:
            ApiError: if the server stops; what was read has been answered.
        """
        await _Pipeline(self._pictures, context, answering).run(self._stopping)

    def stop(self) -> None:
        """Read no more; streams end when what they have read is answered."""
        self._stopping.set()


class _Pipeline:
    """One stream: a task reads, a task for each request computes, and `run` writes."""

    def __init__(
        self, pictures: ClassificationService, context: grpc.aio.ServicerContext, answering: Answering
    ) -> None:
        self._pictures = pictures
        self._context = context
        self._answering = answering
        self._places = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._computing: set[Task[None]] = set()
        self._answers: deque[Any] = deque()
        self._changed = asyncio.Event()  # there is an answer, or the reader has ended

    async def run(self, stopping: asyncio.Event) -> None:
        """Answer until the caller has said all, or the server stops; raises ApiError then."""
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._changed.set())
        stopped = asyncio.create_task(stopping.wait())
        stopped.add_done_callback(lambda _: reader.cancel())
        try:
            while not (reader.done() and not self._computing and not self._answers):
                await self._changed.wait()
                self._changed.clear()
                while self._answers:
                    await self._context.write(self._answers.popleft())
                    self._places.release()
        except grpc.aio.InternalError:  # the caller has gone: nobody is left to answer
            return
        finally:
            for task in (reader, stopped, *self._computing):
                task.cancel()
        if not reader.cancelled():
            reader.result()
            return
        raise ApiError(
            grpc.StatusCode.UNAVAILABLE,
            "SERVER_STOPPING",
            "the server stops: requests without an answer were not begun; send them again",
            retry_after_s=1.0,
        )

    async def _read(self) -> None:
        """Read requests while there are places, and begin with each."""
        while True:
            await self._places.acquire()
            request = await self._context.read()
            if request is grpc.aio.EOF:
                return
            size = self._answering.size(request)
            while not self._pictures.has_room(size):
                await self._pictures.turns.wait()
            self._pictures.hold(size)
            task = asyncio.create_task(self._answer(request))
            self._computing.add(task)

            def done(task: Task[None], size: int = size) -> None:
                self._computing.discard(task)
                self._pictures.let_go(size)
                self._changed.set()

            task.add_done_callback(done)

    async def _answer(self, request: Any) -> None:
        self._answers.append(await self._answering.answer(request, self._context))
        self._changed.set()
