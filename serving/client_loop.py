"""An asynchronous iteration in; the same for synchronous callers out.

It runs in a thread with an event loop of its own, so that it works in programs that have a loop already (notebooks do),
and goes on while the caller is busy with what it got.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from threading import Thread
from typing import Protocol, TypeVar

Item = TypeVar("Item", covariant=True)
Owner = TypeVar("Owner", bound=AbstractAsyncContextManager[object])


class Batches(Protocol[Item]):
    """Gives what there is, many items at a time."""

    async def take(self) -> Sequence[Item]:
        """At least one item, all that there are; none at the end."""

    async def close(self) -> None:
        """End it, wherever it is."""


def iterate_in_thread(make_owner: Callable[[], Owner], begin: Callable[[Owner], Batches[Item]]) -> Iterator[Item]:
    """Iterate over the batches' items.

    Args:
        make_owner: makes, in the loop's thread, what the iteration needs.
        begin: begins the iteration, in the loop's thread too.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="client-loop", daemon=True)
    thread.start()

    async def enter() -> tuple[Owner, Batches[Item]]:
        owner = make_owner()
        await owner.__aenter__()
        return owner, begin(owner)

    async def leave(owner: Owner, batches: Batches[Item]) -> None:
        await batches.close()
        await owner.__aexit__(None, None, None)
        leftover = asyncio.all_tasks() - {asyncio.current_task()}  # gRPC's, which nobody awaits
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    try:
        owner, batches = asyncio.run_coroutine_threadsafe(enter(), loop).result()
        try:
            while items := asyncio.run_coroutine_threadsafe(batches.take(), loop).result():
                yield from items
        finally:
            asyncio.run_coroutine_threadsafe(leave(owner, batches), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
