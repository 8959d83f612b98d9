"""What lets a server shut down without failing calls.

When gRPC is told to stop, it drops the calls that it has received and not yet handed over; their clients get CANCELLED,
which is no reason to retry. Under load there are always some. Therefore new calls are held back first, until hardly any
arrive because all clients wait; then gRPC is told to stop, which makes the clients connect elsewhere; and the held
calls are completed like the others in flight.
"""

import asyncio
import time

IDLE_S = 0.05
"""Time without a new call that ends the wait: longer than a batch takes, after which its clients call again."""
MAX_WAIT_S = 0.5
"""Longest wait, since there may be clients that call without waiting for responses."""
GOAWAY_S = 0.01
"""Time that gRPC needs to notify the connections."""
HEALTH = "/grpc.health.v1.Health/"


class Drain:
    """Holds the calls that arrive between `hold` and `release`."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._last_arrival = 0.0
        self.holding = False
        """Whether new calls have to `wait`."""

    async def wait(self, method: str) -> None:
        """Wait until the calls are released; health checks are not held."""
        if not method.startswith(HEALTH):
            self._last_arrival = time.monotonic()
            await self._open.wait()

    async def hold(self) -> None:
        """Hold new calls from now on; return when hardly any arrive."""
        self._open.clear()
        self.holding = True
        self._last_arrival = began = time.monotonic()
        while (now := time.monotonic()) < min(self._last_arrival + IDLE_S, began + MAX_WAIT_S):
            await asyncio.sleep(self._last_arrival + IDLE_S - now)

    async def release(self) -> None:
        """Pass the held calls on, once gRPC has begun to stop."""
        await asyncio.sleep(GOAWAY_S)
        self.holding = False
        self._open.set()
