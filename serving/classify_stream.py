"""One stream of pictures in; their answers, each as soon as it is known, out.

A picture holds one of the stream's places from before it is read until its answer is written. So a caller who does not
read its answers, or who sends faster than the model computes, is not read any further: HTTP/2's flow control then holds
it back, and nothing gathers here.
"""

import asyncio
from asyncio import Task
from collections import deque

import grpc

from serving.errors import ApiError, invalid
from serving.jobs import QueueFull
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pictures import PictureService, error_result

MAX_IN_FLIGHT = 128
"""Pictures of one stream that are read and not answered."""
MAX_ID_BYTES = 128


class Streams:
    """All streams of a server, which end when it stops."""

    def __init__(self, pictures: PictureService) -> None:
        self._pictures = pictures
        self._stopping = asyncio.Event()

    async def answer(self, context: grpc.aio.ServicerContext) -> None:
        """Answer one stream until its caller has said all, or the server stops.

        Raises:
            ApiError: if the server stops; what was read has been answered.
        """
        await _Stream(self._pictures, context).run(self._stopping)

    def stop(self) -> None:
        """Read no more; streams end when what they have read is answered."""
        self._stopping.set()


class _Stream:
    """One stream: a task reads, a task for each picture computes, and `run` writes."""

    def __init__(self, pictures: PictureService, context: grpc.aio.ServicerContext) -> None:
        self._pictures = pictures
        self._context = context
        self._places = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._computing: set[Task[None]] = set()
        self._answers: deque[pb.ClassifyStreamResponse] = deque()
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
            "the server stops: pictures without an answer were not classified; send them again",
            retry_after_s=1.0,
        )

    async def _read(self) -> None:
        """Read pictures while there are places, and begin with each."""
        while True:
            await self._places.acquire()
            request = await self._context.read()
            if request is grpc.aio.EOF:
                return
            size = len(request.image.content)
            while not self._pictures.has_room(size):
                await self._pictures.turns.wait()
            self._pictures.hold(size)
            task = asyncio.create_task(self._answer(request))
            self._computing.add(task)

            def done(task: Task[None], size: int = size) -> None:
                self._computing.discard(task)
                self._pictures.hold(-size)
                self._pictures.turns.next()
                self._changed.set()

            task.add_done_callback(done)

    async def _answer(self, request: pb.ClassifyStreamRequest) -> None:
        """Classify one picture; whatever is wrong with it is its answer."""
        answer = pb.ClassifyStreamResponse(id=request.id)
        try:
            if (length := len(request.id.encode())) > MAX_ID_BYTES:
                message = f"id has {length:,} bytes; at most {MAX_ID_BYTES} are allowed"
                raise invalid("ID_TOO_LONG", message, "id", most=str(MAX_ID_BYTES))
            await self._classify(request, answer)
        except Exception as error:
            answer.result.CopyFrom(error_result(error, "image.content" if answer.model else ""))
        self._answers.append(answer)
        self._changed.set()

    async def _classify(self, request: pb.ClassifyStreamRequest, answer: pb.ClassifyStreamResponse) -> None:
        image = request.image
        turns = self._pictures.turns
        if again := turns.crowded:
            await turns.wait()
        while True:
            asked = self._pictures.check(request)  # after each wait, since models come and go
            answer.model = asked.model.manifest.resource
            if unknown := self._pictures.check_label(asked, image.label, "image.label"):
                answer.result.CopyFrom(unknown)
                return
            try:
                (outcome,) = await self._pictures.compute(asked, [image.content], self._context.time_remaining())
                break
            except QueueFull:
                if not asked.model.classifier.rows_in_flight:  # more views than the queue ever has room for
                    raise
            await turns.wait(again=again)
            again = True
        if isinstance(outcome, Exception):
            raise outcome
        issued = self._pictures.issue(asked, outcome)
        result = self._pictures.to_result(asked, issued)
        if image.label and (failure := await self._pictures.record(asked, [(issued, image.label)])):
            result = failure
        answer.result.CopyFrom(result)
