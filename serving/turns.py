"""Who found no room in; who may look again, first come, first served, out."""

import asyncio
from collections import deque

LOOK_AGAIN_S = 2.0
"""Who is not told for so long looks again unasked: what took the room may have ended in ways that tell nobody."""


class Turns:
    """Those that wait for room. Only for one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()  # those that are done wait no longer

    @property
    def crowded(self) -> bool:
        """Whether somebody waits already."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    async def wait(self, *, again: bool = False) -> None:
        """Wait until it is worth while to look for room; who looks again goes before those who come now."""
        waiter = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(waiter)
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await waiter
        except TimeoutError:
            return
        except asyncio.CancelledError:
            if not waiter.cancelled():  # told already: the next one takes the place
                self.next()
            raise

    def next(self) -> None:
        """Tell the next who waits that there is room."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
