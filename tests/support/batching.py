"""Engines for tests of batching that compute when the test lets them, and helpers around the batcher."""

import asyncio
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.batching.batcher import DynamicBatcher
from serving.batching.requests import Prepare
from tests.support.waiting import LIMIT_S

Batchers = Callable[..., DynamicBatcher]


class GatedEngine:
    """An engine that returns the first pixel of each row and its double. Each `release` lets one call compute."""

    def __init__(self, max_batch_size: int = 4, *, open_: bool = False) -> None:
        self.max_batch_size = max_batch_size
        self.begun: SimpleQueue[list[int]] = SimpleQueue()
        self.calls: list[list[int]] = []
        self._gate = Semaphore(0)
        self._open = open_
        self.failing = False

    def release(self, calls: int = 1) -> None:
        self._gate.release(calls)

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = images_NHWC[:, 0, 0, 0].tolist()
        self.calls.append(rows)
        self.begun.put(rows)
        if not self._open:
            assert self._gate.acquire(timeout=LIMIT_S)
        if self.failing:
            raise RuntimeError("the device is gone")
        assert len(rows) <= self.max_batch_size
        return np.float32([[row, 2 * row] for row in rows])


def prepare_rows(value: int, rows: int = 1) -> Prepare:
    """A function that prepares rows with the values value, value + 1, …"""
    return lambda: np.arange(value, value + rows, dtype=np.uint8).reshape(rows, 1, 1, 1).repeat(3, axis=3)


def values(outcome: Any) -> list[float]:
    assert isinstance(outcome, np.ndarray), outcome
    return outcome[:, 0].tolist()


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, LIMIT_S))  # type: ignore[arg-type]


async def begun(engine: GatedEngine) -> list[int]:
    """Wait until the engine's next call has begun; return its rows."""
    return await asyncio.to_thread(engine.begun.get, True, LIMIT_S)


async def prepared(batcher: DynamicBatcher, rows: int) -> None:
    """Wait until a number of rows are prepared."""
    while batcher._workers.ready_rows < rows:
        await asyncio.sleep(0.001)
