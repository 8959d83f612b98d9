"""The bytes of images that a server holds, and the requests that wait for capacity. Only for one event loop."""

import asyncio
from collections import deque
from dataclasses import dataclass
from math import inf

from serving.batching.quotas import Quotas
from serving.context import CURRENT_CLIENT, ClientIdentity

RECHECK_S = 2.0
"""Longest wait before a waiter checks again, in case the work before it ended without a notification."""


@dataclass(slots=True)
class _Waiter:
    notified: asyncio.Future[None]
    tried: int
    """The number of the notification after which it was last rejected."""


class WaitQueue:
    """Requests that wait for capacity: in the order of their arrival on each connection, the connections in turns.

    The connection is that of `CURRENT_CLIENT`.
    """

    def __init__(self) -> None:
        self._waiting: dict[ClientIdentity, deque[_Waiter]] = {}  # the next connection first; with some that are done
        self._notifications = 0

    @property
    def occupied(self) -> bool:
        """Whether a request of the same connection waits."""
        queue = self._waiting.get(CURRENT_CLIENT.get())
        return queue is not None and not all(waiter.notified.done() for waiter in queue)

    async def wait(self, timeout_s: float = inf, *, again: bool = False, tried: bool = True) -> None:
        """Wait until there may be capacity, for `timeout_s` at most.

        Args:
            again: wait before the requests of the connection that have not waited yet.
            tried: whether there was no capacity just now.
        """
        notified = asyncio.get_running_loop().create_future()
        waiter = _Waiter(notified, self._notifications if tried else -1)
        queue = self._waiting.setdefault(CURRENT_CLIENT.get(), deque())
        (queue.appendleft if again else queue.append)(waiter)
        try:
            async with asyncio.timeout(min(RECHECK_S, timeout_s)):
                await notified
        except TimeoutError:
            return
        except asyncio.CancelledError:
            if not notified.cancelled():  # another one takes its place
                self.pass_on()
            raise

    def notify(self) -> None:
        """There is capacity: wake the next waiter."""
        self._notifications += 1
        self.pass_on()

    def pass_on(self) -> None:
        """Wake the next waiter that was not rejected since the last notification."""
        for client, queue in list(self._waiting.items()):
            while queue and queue[0].notified.done():
                queue.popleft()
            if queue and queue[0].tried == self._notifications:
                continue
            del self._waiting[client]
            if queue:
                waiter = queue.popleft()
                if queue:
                    self._waiting[client] = queue  # after the other connections
                waiter.notified.set_result(None)
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
