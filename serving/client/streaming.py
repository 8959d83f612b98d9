"""Any number of pictures in; their answers, by ClassifyStream calls that are made again when they break, out.

    images -> feeder -> unsent -> streams -> answers -> take()

A picture holds a place, and its bytes, from when it is taken from `images` until its answer is taken: that bounds
everything in between.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import grpc

from serving.client.messages import ClientError, StreamResult, to_result
from serving.client.retries import TOO_LARGE, Retry, helps
from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_BYTES_IN_FLIGHT = 512 * 2**20
CORE_ERROR = "Internal error from Core"
"""All that gRPC's asyncio client says of a call that the server ended while it wrote."""
CAREFUL_S = 0.05
"""How long a server has to refuse a stream, before anything is written to it again."""
_END: Any = object()


@dataclass(slots=True)
class _Picture:
    index: int
    request: pb.ClassifyStreamRequest
    size: int  # bytes
    failures: int = 0
    written: bool = False  # since it was given to its stream


class StreamingClassify:
    """The pictures of one `classify_many`, in one event loop.

    Args:
        open_streams: each begins a ClassifyStream call, to one server; streams take them by turns.
        to_request: makes a picture's message of its ID and content.
        to_error: makes a ClientError of a failed call.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        *,
        open_streams: Sequence[Callable[[], Any]],
        to_request: Callable[[str, bytes], pb.ClassifyStreamRequest],
        to_error: Callable[[Any], ClientError],
        images: Iterable[bytes] | AsyncIterable[bytes],
        in_flight: int,
        streams: int,
        retry: Retry,
        timeout_s: float,
    ) -> None:
        if in_flight < 1 or streams < 1:
            raise ValueError(f"in_flight is {in_flight} and streams {streams}; each must be at least 1")
        self._open_streams = itertools.cycle(open_streams)
        self._to_request = to_request
        self._to_error = to_error
        self._in_flight = in_flight
        self._in_flight_each = ceil(in_flight / streams)
        self._retry = retry
        self._timeout_s = timeout_s

        self._places = 0  # taken; this and the next count pictures up to `take`
        self._bytes = 0
        self._unanswered = 0
        self._fed = False  # whether all pictures were taken from `images`
        self._unsent: deque[_Picture] = deque()
        self._answers: list[tuple[StreamResult, int]] = []  # each with its picture's bytes
        self._ever_answered = False
        self._failures = 0  # of streams, since the last answer
        self._careful = 0  # pictures that are sent one by one, since a call broke: so it is seen which one breaks it
        self._raised: Exception | None = None

        self._room = asyncio.Event()  # each is set when what its waiter looks at may have changed
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        coroutines = [self._feed(images), *(self._stream() for _ in range(streams))]
        self._tasks = [asyncio.create_task(self._guard(coroutine)) for coroutine in coroutines]

    async def take(self) -> list[StreamResult]:
        """The answers that there are, as soon as there is one; none at the end.

        Raises:
            ClientError: as `Client.classify_many` says; and whatever `images` raises.
        """
        while not self._answers:
            if self._raised:
                raise self._raised
            if self._fed and not self._unanswered:
                return []
            owed = self._unanswered > 0
            self._news.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._news.wait()
            except TimeoutError:
                if owed:  # a source that is slow is no fault of the server's
                    message = f"no answer came for {self._timeout_s:g} s"
                    raise ClientError(grpc.StatusCode.DEADLINE_EXCEEDED, "", message) from None
        taken, self._answers = self._answers, []
        self._places -= len(taken)
        self._bytes -= sum(size for _, size in taken)
        self._room.set()
        return [answer for answer, _ in taken]

    async def close(self) -> None:
        """End the streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:
            self._raised = error
        self._news.set()

    async def _feed(self, images: Iterable[bytes] | AsyncIterable[bytes]) -> None:
        iterator = _iterate(images)
        index = 0
        while True:
            while self._places >= self._in_flight:
                await _changed(self._room)
            content = await anext(iterator, _END)
            if content is _END:
                break
            size = len(content)
            while self._places and self._bytes + size > MAX_BYTES_IN_FLIGHT:
                await _changed(self._room)
            self._unsent.append(_Picture(index, self._to_request(str(index), content), size))
            self._places += 1
            self._bytes += size
            self._unanswered += 1
            self._work.set()
            index += 1
        self._fed = True
        self._work.set()

    async def _stream(self) -> None:
        """Send and receive, on one call after the other, until all is answered."""
        while await self._wait_for_work():
            sent: dict[str, _Picture] = {}
            call = next(self._open_streams)()
            writer = asyncio.create_task(self._write(call, sent))
            failure = None
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    if picture := sent.pop(response.id, None):
                        self._receive(picture, response)
            except grpc.RpcError as error:
                failure = _broken() if error.details() == CORE_ERROR else self._to_error(error)
            finally:
                writer.cancel()
                call.cancel()
            if sent and failure is None:
                failure = _broken()
            if failure:
                await self._recover(list(sent.values()), failure)

    async def _wait_for_work(self) -> bool:
        """Wait until a picture is to be sent; False if there will be none."""
        while not self._unsent:
            if self._fed and not self._unanswered:
                return False
            await _changed(self._work)
        return True

    async def _write(self, call: Any, sent: dict[str, _Picture]) -> None:
        with suppress(grpc.RpcError, asyncio.InvalidStateError):  # why the call ended, its reader finds out
            if self._careful:
                await asyncio.sleep(CAREFUL_S)
            while await self._wait_for_work():
                if len(sent) >= (1 if self._careful else self._in_flight_each):
                    await _changed(self._work)
                    continue
                picture = self._unsent.popleft()
                sent[picture.request.id] = picture
                await call.write(picture.request)
                picture.written = True
            await call.done_writing()

    def _receive(self, picture: _Picture, response: pb.ClassifyStreamResponse) -> None:
        self._ever_answered, self._failures = True, 0
        self._careful = max(0, self._careful - 1)
        self._work.set()  # its stream has room for another
        result = to_result(response.result)
        if isinstance(result, ClientError) and helps(result):
            picture.failures += 1
            if picture.failures < self._retry.attempts:
                delay_s = self._retry.delay_s(picture.failures, result)
                asyncio.get_running_loop().call_later(delay_s, self._send_again, [picture])
                return
        self._answer(picture, StreamResult(picture.index, response.model, result))

    def _answer(self, picture: _Picture, answer: StreamResult) -> None:
        self._unanswered -= 1
        self._answers.append((answer, picture.size))
        self._news.set()
        self._work.set()

    def _send_again(self, pictures: Sequence[_Picture]) -> None:
        self._unsent.extendleft(reversed(pictures))
        self._work.set()

    async def _recover(self, unanswered: list[_Picture], failure: ClientError) -> None:
        """After a call broke: what had no answer is sent again, unless that cannot help."""
        if TOO_LARGE in failure.message and unanswered:  # one of them was; the others are not to blame
            culprit = max(unanswered, key=lambda picture: picture.size)
            unanswered.remove(culprit)
            self._answer(culprit, StreamResult(culprit.index, "", failure))
        else:
            self._failures += 1
            if not helps(failure) or (not self._ever_answered and self._failures >= self._retry.attempts):
                raise failure
            await asyncio.sleep(self._retry.delay_s(self._failures, failure))
        if len(unanswered) == 1:  # perhaps it is what the server cannot survive
            (picture,) = unanswered
            picture.failures += picture.written
            if picture.failures >= self._retry.attempts:
                self._answer(picture, StreamResult(picture.index, "", failure))
                return
        for picture in unanswered:
            picture.written = False
        self._careful = max(self._careful, len(unanswered))
        self._send_again(unanswered)


def _broken() -> ClientError:
    return ClientError(grpc.StatusCode.UNAVAILABLE, "", "the server ended the stream before all was answered")


async def _changed(event: asyncio.Event) -> None:
    event.clear()
    await event.wait()


async def _iterate(images: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    elif isinstance(images, Sequence):
        for image in images:
            yield image
    else:  # it may read files, or wait for something
        iterator = iter(images)
        while (image := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield image
