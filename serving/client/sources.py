"""Images of any iterable, for an event loop: a source that blocks is read in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from queue import SimpleQueue
from threading import Thread
from typing import Any

from serving.client.messages import NamedImage

_END: Any = object()


async def iterate_images(
    images: Iterable[bytes | NamedImage] | AsyncIterable[bytes | NamedImage],
) -> AsyncGenerator[bytes | NamedImage, None]:
    """The images of an iterable, one at a time, as they are asked for.

    Lists, tuples and asynchronous iterables are iterated in the event loop. Other iterables may read files or wait, so
    they are iterated in a daemon thread.
    """
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    elif isinstance(images, list | tuple):
        for image in images:
            yield image
    else:
        async with aclosing(_iterate_in_thread(iter(images))) as results:
            async for image in results:
                yield image


async def _iterate_in_thread(images: Iterator[bytes | NamedImage]) -> AsyncGenerator[bytes | NamedImage, None]:
    # no executor: Python would wait at its exit for a source that blocks for ever
    requests: SimpleQueue[Future[bytes | NamedImage] | None] = SimpleQueue()
    Thread(target=_serve_requests, args=(images, requests), name="client-source", daemon=True).start()
    try:
        while True:
            request: Future[bytes | NamedImage] = Future()
            requests.put(request)
            image = await asyncio.wrap_future(request)
            if image is _END:
                return
            yield image
    finally:
        requests.put(None)


def _serve_requests(
    images: Iterator[bytes | NamedImage], requests: "SimpleQueue[Future[bytes | NamedImage] | None]"
) -> None:
    while (request := requests.get()) is not None:
        if not request.set_running_or_notify_cancel():
            continue
        try:
            request.set_result(next(images, _END))
        except Exception as error:
            request.set_exception(error)
        except BaseException as error:  # SystemExit would end the thread of the event loop
            request.set_exception(RuntimeError(f"the source of the images raised {error!r}"))
