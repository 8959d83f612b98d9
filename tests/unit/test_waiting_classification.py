"""Images of streams that wait for capacity: until their deadline, and only behind those of the same connection."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from serving.api.classification import ClassificationService
from serving.api.in_flight import BytesInFlight
from serving.api.predictions import ClassifySpec
from serving.batching.requests import QueueFull
from serving.context import CURRENT_CLIENT, ClientIdentity
from tests.support.waiting import LIMIT_S

BUSY = SimpleNamespace(classifier=SimpleNamespace(rows_in_flight=1))


class Service(ClassificationService):
    """Has no capacity for the connections in `full`; otherwise the outcome is the timeout that was left."""

    def __init__(self) -> None:
        unused: Any = None
        super().__init__(unused, unused, 1, BytesInFlight(1000), unused)
        self.full: set[str] = set()
        self.tries = 0

    async def _compute(self, spec: ClassifySpec, images: Any, timeout_s: float | None) -> list[Any]:
        self.tries += 1
        if CURRENT_CLIENT.get().connection in self.full:
            raise QueueFull("full", retry_after_s=1.0)
        return [timeout_s]

    async def tried(self) -> None:
        """Wait for the first try."""
        while not self.tries:
            await asyncio.sleep(0.01)

    async def ask(self, connection: str, timeout_s: float | None) -> Any:
        CURRENT_CLIENT.set(ClientIdentity("owner", connection))
        spec: Any = SimpleNamespace(model=BUSY)
        _, [outcome] = await asyncio.wait_for(self.compute_waiting(lambda: spec, [b"image"], timeout_s), LIMIT_S)
        return outcome


def test_an_image_that_waits_until_its_deadline_is_not_begun() -> None:
    async def test() -> None:
        service = Service()
        service.full = {"a"}
        with pytest.raises(TimeoutError, match="the deadline passed"):
            await service.ask("a", 0.02)
        first = service.tries
        service.full = set()
        with pytest.raises(TimeoutError, match="the deadline passed"):
            await service.ask("a", 0.0)
        assert service.tries == first

    asyncio.run(test())


def test_the_time_that_an_image_has_waited_is_not_left_for_its_computation() -> None:
    async def test() -> None:
        service = Service()
        service.full = {"a"}
        waiting = asyncio.create_task(service.ask("a", LIMIT_S))
        await service.tried()
        await asyncio.sleep(0.05)
        service.full = set()
        service.in_flight.waiting.notify()
        assert await waiting <= LIMIT_S - 0.05
        assert await service.ask("a", None) is None

    asyncio.run(test())


def test_an_image_waits_behind_those_of_its_connection_only() -> None:
    async def test() -> None:
        service = Service()
        service.full = {"a"}
        first = asyncio.create_task(service.ask("a", None))
        await service.tried()
        behind = asyncio.create_task(service.ask("a", None))
        assert await service.ask("b", None) is None
        assert service.tries == 2  # not that of the second image of a
        service.full = set()
        for task in (first, behind):
            service.in_flight.waiting.notify()
            assert await task is None

    asyncio.run(test())
