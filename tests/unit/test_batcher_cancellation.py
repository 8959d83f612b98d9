"""Batching: requests that are cancelled, expire or exceed the limit cost nothing, and no result is lost."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.requests import Prepare, QueueFull
from serving.batching.workers import WorkerOptions
from tests.support.batching import Batchers, GatedEngine, begun, prepare_rows, prepared, run, values


def test_a_cancelled_client_s_images_are_neither_prepared_nor_computed(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine()
        batcher = batchers(engine, workers=1)
        prepares: list[int] = []

        def counted(value: int) -> Prepare:
            def prepare() -> NDArray[np.uint8]:
                prepares.append(value)
                return prepare_rows(value)()

            return prepare

        first = asyncio.create_task(batcher.compute([counted(1)], 1))
        assert await begun(engine) == [1]
        cancelled = asyncio.create_task(batcher.compute([counted(2)] * 5, 1))
        last = asyncio.create_task(batcher.compute([counted(3)], 1))
        await asyncio.sleep(0)
        assert batcher.rows_in_flight == 7
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert batcher.rows_in_flight == 2  # the place in the queue is free at once
        engine.release(2)
        await asyncio.gather(first, last)
        assert prepares == [1, 3]
        assert engine.calls == [[1], [3]]

    run(test())


def test_rows_that_are_cancelled_after_they_were_prepared_are_not_computed(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=4)
        batcher = batchers(engine)
        first = asyncio.create_task(batcher.compute([prepare_rows(1)], 1))
        assert await begun(engine) == [1]
        cancelled = asyncio.create_task(batcher.compute([prepare_rows(50, rows=8)], 8))
        last = asyncio.create_task(batcher.compute([prepare_rows(3)], 1))
        await prepared(batcher, 9)
        cancelled.cancel()
        await asyncio.sleep(0)
        engine.release(2)
        await asyncio.gather(first, last)
        assert engine.calls == [[1], [3]]

    run(test())


def test_images_whose_deadline_has_passed_cost_nothing(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine()
        batcher = batchers(engine, workers=1)
        first = asyncio.create_task(batcher.compute([prepare_rows(1)], 1))
        assert await begun(engine) == [1]
        late = asyncio.create_task(batcher.compute([prepare_rows(2), prepare_rows(3)], 1, timeout_s=0))
        await asyncio.sleep(0)
        engine.release()
        assert [type(outcome) for outcome in await late] == [TimeoutError, TimeoutError]
        await first
        assert engine.calls == [[1]]

    run(test())


def test_more_rows_than_the_bound_are_rejected_before_any_work(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine()
        batcher = batchers(engine, workers=1, max_rows=10)
        task = asyncio.create_task(batcher.compute([prepare_rows(1, rows=3)] * 3, 3))
        assert await begun(engine)
        with pytest.raises(QueueFull, match=r"9 views are in flight, and the request asks for 2 more; at most 10"):
            await batcher.compute([lambda: pytest.fail("prepared")], 2)
        engine.release(10)
        await task
        assert batcher.rows_in_flight == 0
        (outcome,) = await batcher.compute([prepare_rows(5)], 1)
        assert values(outcome) == [5]

    run(test())


def test_closing_computes_what_is_in_flight(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=2)
        batcher = batchers(engine, workers=1)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(value, rows=3)], 3)) for value in (0, 10, 20)]
        assert await begun(engine)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        engine.release(100)
        outcomes = await asyncio.gather(*tasks)
        assert [values(outcome) for (outcome,) in outcomes] == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
        await closing

    run(test())


@settings(max_examples=25)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.sampled_from(["wait", "cancel", "expire"])),
        min_size=1,
        max_size=12,
    ),
    max_batch_size=st.integers(1, 8),
    engine_count=st.integers(1, 3),
    workers=st.integers(1, 4),
)
def test_whatever_is_requested_and_cancelled_each_image_gets_the_results_of_its_own_rows(
    requests: list[tuple[int, int, str]], max_batch_size: int, engine_count: int, workers: int
) -> None:
    engines = [GatedEngine(max_batch_size, open_=True) for _ in range(engine_count)]
    batcher = DynamicBatcher(engines, Admission(10_000), WorkerOptions(count=workers))

    async def ask(index: int, images: int, rows: int, how: str) -> None:
        wanted = [prepare_rows(index * 20 + number, rows) for number in range(images)]
        call = asyncio.create_task(batcher.compute(wanted, rows, timeout_s=0 if how == "expire" else None))
        await asyncio.sleep(0)
        if how == "cancel":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return
        for number, outcome in enumerate(await call):
            if how == "expire":
                assert isinstance(outcome, TimeoutError)
            else:
                assert values(outcome) == [index * 20 + number + row for row in range(rows)]

    async def test() -> None:
        await asyncio.gather(*(ask(index, *request) for index, request in enumerate(requests)))
        assert batcher.rows_in_flight == 0

    try:
        run(test())
    finally:
        batcher.close()
    assert max((len(call) for engine in engines for call in engine.calls), default=0) <= max_batch_size
