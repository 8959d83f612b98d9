"""Calls that come while a server begins to stop in; the same calls out, once gRPC has told callers to go elsewhere.

Told to stop, gRPC gives up the calls that it has received and not handed over yet: their callers are told CANCELLED,
which is no reason to try again. Under load there are always some. So new calls are held for a moment, until none come
because all callers wait; then gRPC is told, which tells the callers; and the held ones are answered like others in
flight.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

QUIET_S = 0.05
"""So long no call must have come: longer than it takes to answer a batch, whose callers come again."""
LONGEST_S = 0.5
"""For how long that is waited for: there may be callers who wait for no answers."""
TELLING_S = 0.01
"""What gRPC needs to tell its connections."""
HEALTH = "/grpc.health.v1.Health/"


class DrainInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls through, but holds those that come between `hold_new` and `release`."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._last_came = 0.0

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The method's handler; health checks have theirs at once."""
        if not self._free.is_set() and not details.method.startswith(HEALTH):
            self._last_came = time.monotonic()
            await self._free.wait()
        return await continuation(details)

    async def hold_new(self) -> None:
        """Hold new calls from now on; returns when hardly any come."""
        self._free.clear()
        self._last_came = began = time.monotonic()
        while (now := time.monotonic()) < min(self._last_came + QUIET_S, began + LONGEST_S):
            await asyncio.sleep(self._last_came + QUIET_S - now)

    async def release(self) -> None:
        """Let them through, now that gRPC has begun to stop."""
        await asyncio.sleep(TELLING_S)
        self._free.set()
