"""Batching: large images of one client do not delay the others."""

import asyncio
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.batching.requests import Prepare
from serving.context import ClientIdentity
from serving.image.decode import DecodeWork
from tests.support.batching import Batchers, GatedEngine, prepare_rows, run, values
from tests.support.waiting import LIMIT_S


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_large_images_of_one_client_leave_the_workers_for_another_client(batchers: Batchers, workers: int) -> None:
    async def test() -> None:
        batcher = batchers(GatedEngine(open_=True), workers=workers)
        began, may_end = threading.Semaphore(0), threading.Event()

        def decode() -> NDArray[np.uint8]:
            began.release()
            assert may_end.wait(LIMIT_S)
            return prepare_rows(99)()

        works = [DecodeWork(1.5, large=True)] * 6
        greedy = asyncio.create_task(
            batcher.compute([decode] * 6, 1, works=works, client=ClientIdentity("greedy", "1"))
        )
        assert await asyncio.to_thread(began.acquire, timeout=LIMIT_S)
        for value in range(20):
            outcomes = await batcher.compute([prepare_rows(value)], 1, client=ClientIdentity("polite", "2"))
            assert values(outcomes[0]) == [value]
        assert not began.acquire(blocking=False)  # a second large one has not begun
        may_end.set()
        assert [values(outcome) for outcome in await greedy] == [[99]] * 6

    run(test())


def test_of_large_images_those_with_one_view_go_before_those_with_several(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(open_=True)
        batcher = batchers(engine, workers=1)
        began, may_end = threading.Event(), threading.Event()

        def decode() -> NDArray[np.uint8]:
            began.set()
            assert may_end.wait(LIMIT_S)
            return prepare_rows(0)()

        async def ask(prepare: Prepare, rows: int = 1) -> None:
            await batcher.compute([prepare], rows, works=[DecodeWork(1.5, large=True)])

        tasks = [asyncio.create_task(ask(decode))]
        assert await asyncio.to_thread(began.wait, LIMIT_S)
        tasks.append(asyncio.create_task(ask(prepare_rows(100, rows=4), 4)))
        tasks += [asyncio.create_task(ask(prepare_rows(value))) for value in (1, 2)]
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.gather(*tasks)
        assert engine.calls == [[0], [1], [2], [100, 101, 102, 103]]

    run(test())


def test_the_order_of_clients_follows_the_work_of_their_images(batchers: Batchers) -> None:
    async def test() -> None:
        batcher = batchers(GatedEngine(open_=True), workers=1, max_gathered_rows=1)
        began, may_begin = threading.Event(), threading.Event()
        decoded: list[str] = []

        def wait() -> NDArray[np.uint8]:
            began.set()
            assert may_begin.wait(LIMIT_S)
            return prepare_rows(1)()

        def named(name: str) -> Prepare:
            def decode() -> NDArray[np.uint8]:
                decoded.append(name)
                return prepare_rows(1)()

            return decode

        async def ask(name: str, seconds: float, count: int) -> None:
            works = [DecodeWork(seconds, large=False)] * count
            await batcher.compute([named(name)] * count, 1, works=works, client=ClientIdentity(name, ""))

        first = asyncio.create_task(batcher.compute([wait], 1))
        assert await asyncio.to_thread(began.wait, LIMIT_S)
        others = [asyncio.create_task(ask("much", 1.0, 3)), asyncio.create_task(ask("little", 0.1, 15))]
        await asyncio.sleep(0)
        may_begin.set()
        await asyncio.gather(first, *others)
        # a row in the engine costs 5 ms or less, so that nine or ten of the small ones cost as much as a large one
        starts = [index for index, name in enumerate(decoded) if name == "much"]
        assert starts[0] in (9, 10)
        assert sorted(decoded[:10]).count("little") >= 9

    run(test())
