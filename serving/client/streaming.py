"""Any number of images over ClassifyStream calls, which are made again when they break.

    images -> feeder -> unsent -> streams -> results -> take()

An image is held, with its bytes, from when it is taken from `images` until its result is taken. The bounds on images
and bytes in flight count held images, so they bound every queue in between.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import grpc

from serving.client.messages import (
    ClientError,
    NamedImage,
    StreamResult,
    client_closed,
    to_result,
)
from serving.client.retries import TOO_LARGE, Retry, is_retryable
from serving.client.sources import iterate_images
from serving.pb.pawserve.v1 import classifier_pb2 as pb

MAX_BYTES_IN_FLIGHT = 512 * 2**20
CORE_ERROR = "Internal error from Core"
"""All that gRPC's asyncio client reports of a call that the server ended during a write."""
END_WAIT_S = 5.0
"""Most seconds that calls get to end, once every image has a result."""
REJECTION_WAIT_S = 0.05
"""Seconds for the server to reject a new stream before images are sent one at a time."""


@dataclass(slots=True)
class _Image:
    index: int
    request: pb.ClassifyStreamRequest
    size: int  # bytes
    failures: int = 0
    written: bool = False  # to the stream that it was last given to


class StreamingClassify:
    """The streams of one `classify_many`. Make and use it in one event loop.

    Args:
        open_streams: each begins a ClassifyStream call to one server; streams use them in rotation.
        images, in_flight, streams: as for `Client.classify_many`.
        options: what is the same in the requests of all images.
        to_error: describes an error of gRPC.
        max_bytes_in_flight: most bytes of held images; an image larger than that is sent while no other is held.
        retry, timeout_s: as for `Client`.

    Raises:
        ValueError: if `in_flight` or `streams` is below 1.
    """

    def __init__(
        self,
        open_streams: Sequence[Callable[[], Any]],
        images: Iterable[bytes | NamedImage] | AsyncIterable[bytes | NamedImage],
        options: pb.ClassifyStreamRequest,
        *,
        to_error: Callable[[grpc.RpcError], ClientError],
        in_flight: int,
        streams: int,
        max_bytes_in_flight: int,
        retry: Retry,
        timeout_s: float,
    ) -> None:
        if in_flight < 1 or streams < 1:
            raise ValueError(f"in_flight is {in_flight} and streams is {streams}; each must be at least 1")
        self._open_streams = itertools.cycle(open_streams)
        self._options = options
        self._to_error = to_error
        self._in_flight = in_flight
        self._in_flight_each = ceil(in_flight / streams)
        self._max_bytes = max_bytes_in_flight
        self._retry = retry
        self._timeout_s = timeout_s

        self._held = 0
        self._held_bytes = 0
        self._open = 0  # images without a result
        self._source_ended = False
        self._unsent: deque[_Image] = deque()
        self._results: list[tuple[StreamResult, int]] = []  # each with its image's size
        self._any_result = False
        self._failures = 0  # of streams, since the last result
        # results until several images are sent at a time, after a call broke: shows which image broke it
        self._send_singly = 0
        self._error: Exception | None = None
        self._closed = False

        # set when the condition that their waiters check may have changed
        self._space = asyncio.Event()
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        coroutines = [self._feed(images), *(self._stream() for _ in range(streams))]
        self._tasks = [asyncio.create_task(self._keep_error(coroutine)) for coroutine in coroutines]

    async def take(self) -> list[StreamResult]:
        """All results that have arrived, at least one; an empty list at the end.

        Raises:
            ClientError: as for `Client.classify_many`.
            Exception: whatever `images` raises.
        """
        while not self._results:
            if self._error:
                raise self._error
            if self._source_ended and not self._open:
                # the servers count a call that is cancelled before it has ended as CANCELLED
                await asyncio.wait(self._tasks, timeout=END_WAIT_S)
                return []
            waiting_for_server = self._open > 0
            self._progress.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._progress.wait()
            except TimeoutError:
                if waiting_for_server:  # not for a slow source
                    message = f"no result arrived for {self._timeout_s:g} s"
                    raise ClientError(grpc.StatusCode.DEADLINE_EXCEEDED, "", message) from None
        taken, self._results = self._results, []
        self._held -= len(taken)
        self._held_bytes -= sum(size for _, size in taken)
        self._space.set()
        return [result for result, _ in taken]

    async def close(self) -> None:
        """End the streams."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_error(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            if self._closed:
                raise
            self._error = client_closed()
        except Exception as error:
            self._error = error
        self._progress.set()

    async def _feed(self, images: Iterable[bytes | NamedImage] | AsyncIterable[bytes | NamedImage]) -> None:
        async with aclosing(iterate_images(images)) as contents:
            index = 0
            async for image in contents:
                content, reference = image if isinstance(image, NamedImage) else (image, "")
                size = len(content)
                while self._held and self._held_bytes + size > self._max_bytes:
                    await _changed(self._space)
                encoded = pb.ImageInput(content=content, reference=reference)
                request = pb.ClassifyStreamRequest(id=str(index), image=encoded)
                request.MergeFrom(self._options)
                self._unsent.append(_Image(index, request, size))
                index += 1
                self._held += 1
                self._held_bytes += size
                self._open += 1
                self._work.set()
                while self._held >= self._in_flight:
                    await _changed(self._space)
        self._source_ended = True
        self._work.set()

    async def _stream(self) -> None:
        """Send and receive, over one call after another, until every image has a result."""
        while await self._wait_for_work():
            sent: dict[str, _Image] = {}
            call = next(self._open_streams)()
            writer = asyncio.create_task(self._write(call, sent))
            failure = None
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    if image := sent.pop(response.id, None):
                        self._receive(image, response)
            except grpc.RpcError as error:
                failure = _ended_early() if error.details() == CORE_ERROR else self._to_error(error)
            finally:
                writer.cancel()
                call.cancel()
            if sent and failure is None:
                failure = _ended_early()
            if failure:
                await self._recover(list(sent.values()), failure)

    async def _wait_for_work(self) -> bool:
        """Wait until there is an image to send; False if there will be none."""
        while not self._unsent:
            if self._source_ended and not self._open:
                return False
            await _changed(self._work)
        return True

    async def _write(self, call: Any, sent: dict[str, _Image]) -> None:
        with suppress(grpc.RpcError, asyncio.InvalidStateError):  # the reader learns why the call ended
            if self._send_singly:
                await asyncio.sleep(REJECTION_WAIT_S)
            while await self._wait_for_work():
                if len(sent) >= (1 if self._send_singly else self._in_flight_each):
                    await _changed(self._work)
                    continue
                image = self._unsent.popleft()
                sent[image.request.id] = image
                await call.write(image.request)
                image.written = True
            await call.done_writing()

    def _receive(self, image: _Image, response: pb.ClassifyStreamResponse) -> None:
        self._any_result, self._failures = True, 0
        self._send_singly = max(0, self._send_singly - 1)
        self._work.set()  # the stream can send another image
        result = to_result(response.result)
        if isinstance(result, ClientError) and is_retryable(result):
            image.failures += 1
            if image.failures < self._retry.attempts:
                delay_s = self._retry.delay_s(image.failures, result)
                asyncio.get_running_loop().call_later(delay_s, self._send_again, [image])
                return
        self._finish(image, StreamResult(image.index, response.model, result))

    def _finish(self, image: _Image, result: StreamResult) -> None:
        self._open -= 1
        self._results.append((result, image.size))
        self._progress.set()
        self._work.set()

    def _send_again(self, images: Sequence[_Image]) -> None:
        self._unsent.extendleft(reversed(images))
        self._work.set()

    async def _recover(self, images: list[_Image], failure: ClientError) -> None:
        """Send the images without a result again after a call broke, unless that cannot help."""
        if TOO_LARGE in failure.message and images:  # the largest image was too large; the others can be sent again
            largest = max(images, key=lambda image: image.size)
            images.remove(largest)
            self._finish(largest, StreamResult(largest.index, "", failure))
        else:
            self._failures += 1
            if not is_retryable(failure) or (not self._any_result and self._failures >= self._retry.attempts):
                raise failure
            await asyncio.sleep(self._retry.delay_s(self._failures, failure))
        if len(images) == 1:  # perhaps the server cannot survive this image
            (image,) = images
            image.failures += image.written
            if image.failures >= self._retry.attempts:
                self._finish(image, StreamResult(image.index, "", failure))
                return
        for image in images:
            image.written = False
        self._send_singly = max(self._send_singly, len(images))
        self._send_again(images)


def _ended_early() -> ClientError:
    return ClientError(grpc.StatusCode.UNAVAILABLE, "", "the server ended the stream before every image had a result")


async def _changed(event: asyncio.Event) -> None:
    event.clear()
    await event.wait()
