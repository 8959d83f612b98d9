"""An asynchronous iteration in; the same for synchronous callers out.

It runs in a thread with an event loop of its own, so that it works in programs that have a loop already (notebooks do),
and goes on while the caller is busy with what it got.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from threading import Lock, Thread
from typing import Protocol, TypeVar

Item = TypeVar("Item", covariant=True)
Owner = TypeVar("Owner", bound=AbstractAsyncContextManager[object])


class Batches(Protocol[Item]):
    """Gives what there is, many items at a time."""

    async def take(self) -> Sequence[Item]:
        """At least one item, all that there are; none at the end."""

    async def close(self) -> None:
        """End it, wherever it is."""


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = Lock()


def iterate_in_thread(make_owner: Callable[[], Owner], begin: Callable[[Owner], Batches[Item]]) -> Iterator[Item]:
    """Iterate over the batches' items.

    Args:
        make_owner: makes, in the loop's thread, what the iteration needs.
        begin: begins the iteration, in the loop's thread too.
    """
    loop = _loop_of_this_process()

    async def enter() -> tuple[Owner, Batches[Item]]:
        owner = make_owner()
        await owner.__aenter__()
        return owner, begin(owner)

    async def leave(owner: Owner, batches: Batches[Item]) -> None:
        await batches.close()
        await owner.__aexit__(None, None, None)

    owner, batches = asyncio.run_coroutine_threadsafe(enter(), loop).result()
    try:
        while items := asyncio.run_coroutine_threadsafe(batches.take(), loop).result():
            yield from items
    finally:
        asyncio.run_coroutine_threadsafe(leave(owner, batches), loop).result()


def _loop_of_this_process() -> asyncio.AbstractEventLoop:
    """One loop for all iterations, which is never closed: gRPC goes on to tell every loop that it ever met of news."""
    with _starting:
        loop = _loops.get(os.getpid())  # a forked process has none of its parent's threads
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            Thread(target=loop.run_forever, name="client-loop", daemon=True).start()
        return loop
