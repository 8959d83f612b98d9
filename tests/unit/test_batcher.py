"""Batching: order and batch sizes, with engines that compute when told to."""

import asyncio
import os
import threading

import numpy as np
from numpy.typing import NDArray

from serving.batching.requests import Prepare
from tests.support.batching import Batchers, GatedEngine, begun, prepare_rows, prepared, run, values
from tests.support.waiting import LIMIT_S


def test_an_idle_engine_takes_a_row_at_once(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=8)
        task = asyncio.create_task(batchers(engine).compute([prepare_rows(7)], 1))
        assert await begun(engine) == [7]
        engine.release()
        assert [values(outcome) for outcome in await task] == [[7]]

    run(test())


def test_rows_gather_while_the_engine_works_and_go_together(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=4)
        batcher = batchers(engine)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(0)], 1))]
        assert await begun(engine) == [0]
        tasks += [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in range(1, 7)]
        await prepared(batcher, 6)
        engine.release(3)
        outcomes = await asyncio.gather(*tasks)
        assert engine.calls == [[0], [1, 2, 3, 4], [5, 6]]
        assert [values(outcome) for (outcome,) in outcomes] == [[value] for value in range(7)]

    run(test())


def test_an_image_with_more_rows_than_a_batch_is_split_and_joined(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=4, open_=True)
        outcomes = await batchers(engine, workers=1).compute([prepare_rows(0, rows=10), prepare_rows(100, rows=10)], 10)
        assert list(map(values, outcomes)) == [list(range(10)), list(range(100, 110))]
        assert sorted(row for call in engine.calls for row in call) == [*range(10), *range(100, 110)]
        assert max(map(len, engine.calls)) <= 4

    run(test())


def test_idle_engines_share_the_rows_of_one_image(batchers: Batchers) -> None:
    async def test() -> None:
        engines = GatedEngine(max_batch_size=8), GatedEngine(max_batch_size=8)
        task = asyncio.create_task(batchers(*engines).compute([prepare_rows(0, rows=4)], 4))
        halves = [await begun(engine) for engine in engines]
        assert sorted(halves) == [[0, 1], [2, 3]]
        for engine in engines:
            engine.release()
        assert values((await task)[0]) == [0, 1, 2, 3]

    run(test())


def test_a_long_queue_makes_full_batches_even_with_an_engine_for_each_worker(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=4)
        batcher = batchers(engine, workers=1, max_gather_s=LIMIT_S)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in range(9)]
        assert (await begun(engine))[0] == 0
        engine.release(9)
        await asyncio.gather(*tasks)
        assert max(map(len, engine.calls)) == 4
        assert [row for call in engine.calls for row in call] == list(range(9))

    run(test())


def test_an_image_that_takes_long_to_prepare_delays_none_of_its_worker_s_share(batchers: Batchers) -> None:
    async def test() -> None:
        engines = GatedEngine(open_=True), GatedEngine(open_=True)
        batcher = batchers(*engines)
        began, busy, ended = threading.Semaphore(0), threading.Event(), threading.Event()

        def until(event: threading.Event, value: int) -> Prepare:
            def prepare() -> NDArray[np.uint8]:
                began.release()
                assert event.wait(LIMIT_S)
                return prepare_rows(value)()

            return prepare

        first = [asyncio.create_task(batcher.compute([until(busy, value)], 1)) for value in range(2)]
        for _ in first:  # both workers are busy, so that what comes now queues
            assert await asyncio.to_thread(began.acquire, timeout=LIMIT_S)
        quick = [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in range(10, 13)]
        await asyncio.sleep(0)
        long = asyncio.create_task(batcher.compute([until(ended, 99)], 1))
        quick += [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in range(13, 18)]
        await asyncio.sleep(0)
        busy.set()
        await asyncio.gather(*first, *quick)
        assert not long.done()
        ended.set()
        assert values((await long)[0]) == [99]

    run(test())


def test_a_worker_is_bound_to_its_cpu_while_images_queue(batchers: Batchers) -> None:
    async def test() -> None:
        allowed = os.sched_getaffinity(0)
        cpu = max(allowed)
        for cpus, expected in (([cpu], {cpu}), ([], allowed), ([4095], allowed)):  # hardly any machine has the last
            began, queued = threading.Event(), threading.Event()
            used = []

            def prepare(
                began: threading.Event = began, queued: threading.Event = queued, used: list[set[int]] = used
            ) -> NDArray[np.uint8]:
                began.set()
                assert queued.wait(LIMIT_S)
                used.append(os.sched_getaffinity(0))
                return prepare_rows(1)()

            batcher = batchers(
                GatedEngine(open_=True), workers=1, cpus=cpus, max_gathered_rows=1, least_cpu_share=0
            )  # each image has a turn of its own, and the share of the CPU that the worker gets does not count
            tasks = [asyncio.create_task(batcher.compute([prepare], 1)) for _ in range(5)]
            await asyncio.to_thread(began.wait, LIMIT_S)
            queued.set()
            await asyncio.gather(*tasks)
            assert used[1:] == [expected] * 3 + [allowed]  # none queues behind the last one

    run(test())


def test_first_come_first_served(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=2)
        batcher = batchers(engine, workers=1)
        finished: list[int] = []

        async def ask(value: int, rows: int) -> None:
            await batcher.compute([prepare_rows(value, rows)], rows)
            finished.append(value)

        large = asyncio.create_task(ask(0, 20))
        assert await begun(engine) == [0, 1]
        small = [asyncio.create_task(ask(value, 1)) for value in (100, 101, 102)]
        await asyncio.sleep(0)
        engine.release(100)
        await asyncio.gather(large, *small)
        assert finished == [0, 100, 101, 102]

    run(test())
