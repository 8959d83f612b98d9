"""Coroutines and asynchronous generators for synchronous callers.

They run in a daemon thread with an event loop. So they work in programs that run an event loop themselves, such as
notebooks, and continue while the caller is busy with results.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")

_loops: dict[int, "BackgroundLoop"] = {}  # by process ID: of the process, as gRPC keeps every loop that it has used
_starting = Lock()


class BackgroundLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._closing: set[asyncio.Task[None]] = set()  # a loop itself does not keep its tasks alive
        Thread(target=self._loop.run_forever, name="client-loop", daemon=True).start()

    @staticmethod
    def of_this_process() -> "BackgroundLoop":
        """The loop that all clients of this process share. It is never closed: gRPC keeps every loop that it has used.

        A forked process gets a loop of its own, since it has no threads of its parent.
        """
        with _starting:
            process = os.getpid()
            if process not in _loops:
                _loops[process] = BackgroundLoop()
            return _loops[process]

    @property
    def running(self) -> bool:
        """Whether the thread still runs: not in a forked process, nor while the interpreter is finalized."""
        return self._process == os.getpid() and not sys.is_finalizing()

    def run(self, coroutine: Coroutine[Any, Any, Item]) -> Item:
        """Run a coroutine and wait for its result. It is cancelled if the wait is interrupted (KeyboardInterrupt).

        Raises:
            RuntimeError: if the loop no longer runs.
        """
        if not self.running:
            coroutine.close()
            raise RuntimeError("a client can be used only in the process that made it, and not while Python shuts down")
        future = asyncio.run_coroutine_threadsafe(_outcome(coroutine), self._loop)
        try:
            outcome = future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            del future  # which holds the exception, whose traceback holds this frame
        if not isinstance(outcome, _Failure):
            return outcome
        try:
            raise outcome.error
        finally:
            del outcome

    def close_soon(self, generator: AsyncGenerator[Any, None]) -> None:
        """Close a generator without waiting for it."""
        if self.running:
            self._loop.call_soon_threadsafe(self._close, generator)

    def _close(self, generator: AsyncGenerator[Any, None]) -> None:
        task = self._loop.create_task(generator.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@dataclass(frozen=True)
class _Failure:
    error: Exception


async def _outcome(coroutine: Coroutine[Any, Any, Item]) -> Item | _Failure:
    """The result or the error of a coroutine. A task that keeps an error which nobody waits for would print it."""
    try:
        return await coroutine
    except Exception as error:
        return _Failure(error)


class BlockingIterator(Iterator[Item]):
    """The items of an asynchronous generator of batches.

    `close` ends the generator and waits until it has ended. Garbage collection ends it without waiting, so that neither
    a finalizer nor the end of the program waits for the loop.
    """

    def __init__(self, loop: BackgroundLoop, batches: AsyncGenerator[Sequence[Item], None]) -> None:
        self._loop = loop
        self._batches = batches
        self._ready: Iterator[Item] = iter(())

    def __next__(self) -> Item:
        while True:
            for item in self._ready:
                return item
            batch = self._loop.run(self._take())
            if batch is None:
                raise StopIteration
            self._ready = iter(batch)

    def close(self) -> None:
        """End the iteration."""
        self._ready = iter(())
        self._loop.run(self._batches.aclose())

    def __del__(self) -> None:
        self._loop.close_soon(self._batches)

    async def _take(self) -> Sequence[Item] | None:
        return await anext(self._batches, None)
