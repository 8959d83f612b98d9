"""Under load single views go before extra views of test-time augmentation, which keep a share of the turns."""

import asyncio

from tests.support.batching import Batchers, GatedEngine, begun, prepare_rows, run, values


def test_single_views_overtake_extra_views_which_keep_a_share_of_the_turns(
    batchers: Batchers,
) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=1)
        batcher = batchers(engine, workers=1, max_gathered_rows=1)  # each image has a turn of its own
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(0)], 1))]
        assert await begun(engine) == [0]
        for first in (100, 110):  # two images of two views each, which came first
            tasks.append(asyncio.create_task(batcher.compute([prepare_rows(first, rows=2)], 2)))
        tasks += [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in range(1, 31)]
        await asyncio.sleep(0)
        engine.release(35)
        outcomes = await asyncio.gather(*tasks)
        order = [call[0] for call in engine.calls]
        assert order[:6] == [0, 1, 2, 3, 100, 101]
        assert order.index(111) < order.index(30)
        assert values(outcomes[1][0]) == [100, 101]

    run(test())


def test_prepared_single_views_overtake_prepared_extra_views(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=1)
        batcher = batchers(engine, workers=2)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(0)], 1))]
        assert await begun(engine) == [0]
        tasks.append(asyncio.create_task(batcher.compute([prepare_rows(100, rows=3)], 3)))
        while batcher._workers.ready_rows < 3:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.compute([prepare_rows(value)], 1)) for value in (1, 2)]
        while batcher._workers.ready_rows < 5:
            await asyncio.sleep(0.001)
        engine.release(6)
        await asyncio.gather(*tasks)
        assert [call[0] for call in engine.calls] == [0, 1, 2, 100, 101, 102]

    run(test())


def test_further_views_of_an_image_are_not_rejected_and_count_as_in_flight(batchers: Batchers) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=4)
        batcher = batchers(engine, max_rows=2)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(0), prepare_rows(1)], 1))]
        await begun(engine)
        tasks.append(asyncio.create_task(batcher.compute([prepare_rows(10, rows=4)], 4, extra=True)))
        await asyncio.sleep(0)
        assert batcher.rows_in_flight == 6
        engine.release(10)
        (_, (further,)) = await asyncio.gather(*tasks)
        assert values(further) == [10, 11, 12, 13]
        assert batcher.rows_in_flight == 0

    run(test())
