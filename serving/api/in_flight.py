"""The bytes of images that a server holds, and the requests that wait for capacity. Only for one event loop."""

import asyncio
from collections import deque

from serving.batching.quotas import Quotas
from serving.context import CURRENT_CLIENT

RECHECK_S = 2.0
"""Longest wait before a waiter checks again, in case the work before it ended without a notification."""


class WaitQueue:
    """Requests that wait for capacity, in the order of their arrival."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()  # with some that are done and wait no longer

    @property
    def occupied(self) -> bool:
        """Whether a request waits."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    async def wait(self, *, again: bool = False) -> None:
        """Wait until there may be capacity; with `again`, before those that have not waited yet."""
        waiter = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(waiter)
        try:
            async with asyncio.timeout(RECHECK_S):
                await waiter
        except TimeoutError:
            return
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was notified already: the next one takes its place
                self.notify()
            raise

    def notify(self) -> None:
        """Wake the next waiter."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class BytesInFlight:
    """A limit of bytes, of which each client has a quota; the client is `CURRENT_CLIENT`.

    Args:
        limit: most bytes at once; a single request may have more while no other is in flight.
    """

    def __init__(self, limit: int) -> None:
        self._quotas = Quotas(limit)
        self.waiting = WaitQueue()
        """Requests that wait, for bytes or for views."""

    @property
    def total(self) -> int:
        """Bytes in flight."""
        return self._quotas.total

    @property
    def limit(self) -> int:
        """Most bytes in flight."""
        return self._quotas.limit

    def admits(self, size: int) -> bool:
        """Whether the client may hold so many bytes more."""
        return not self._quotas.total or self._quotas.admits(CURRENT_CLIENT.get(), size)

    def take(self, size: int) -> None:
        """Count bytes that the client holds."""
        self._quotas.take(CURRENT_CLIENT.get(), size)

    def release(self, size: int) -> None:
        """Stop counting them, and wake the next waiter."""
        self._quotas.give_back(CURRENT_CLIENT.get(), size)
        self.waiting.notify()
