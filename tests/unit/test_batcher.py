"""Batching: order, batch sizes, cancellation, deadlines and errors, with engines that compute when told to."""

import asyncio
import os
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.batching.admission import Admission
from serving.batching.affinity import CpuAffinity
from serving.batching.batcher import DynamicBatcher
from serving.batching.requests import Prepare, QueueFull, RowSlice
from serving.batching.workers import WorkerOptions
from serving.context import ClientIdentity
from serving.engine.base import DeviceLost, InferenceError
from serving.image.decode import DecodeWork
from serving.rpc.api_errors import to_api_error
from tests.support.batching import Batchers, GatedEngine, begun, prepare_rows, prepared, run, values
from tests.support.waiting import LIMIT_S, eventually


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
        late = asyncio.create_task(batcher.compute([prepare_rows(2), prepare_rows(3)], 1, timeout_s=0.01))
        await asyncio.sleep(0.02)
        engine.release()
        assert [type(outcome) for outcome in await late] == [TimeoutError, TimeoutError]
        await first
        assert engine.calls == [[1]]

    run(test())


def test_more_rows_than_the_bound_are_refused_before_any_work(batchers: Batchers) -> None:
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


def test_an_engine_that_fails_fails_the_rows_of_that_call_only(
    batchers: Batchers, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        engine = GatedEngine(max_batch_size=2)
        batcher = batchers(engine)
        tasks = [asyncio.create_task(batcher.compute([prepare_rows(0)], 1))]
        assert await begun(engine) == [0]
        # the second request's row goes with the first row of the third, whose other rows are then not computed
        tasks += [
            asyncio.create_task(batcher.compute([prepare_rows(value, rows)], rows)) for value, rows in ((1, 1), (2, 5))
        ]
        await prepared(batcher, 6)
        engine.release()
        assert await begun(engine) == [1, 2]
        engine.failing = True
        engine.release()
        for task in tasks[1:]:
            (outcome,) = await task
            assert isinstance(outcome, InferenceError)
            assert "the device is gone" not in str(outcome)  # that is for the log
        engine.failing = False
        engine.release(10)
        assert values((await batcher.compute([prepare_rows(9)], 1))[0]) == [9]
        assert values((await tasks[0])[0]) == [0]
        assert engine.calls == [[0], [1, 2], [9]]

    run(test())
    assert "the device is gone" in caplog.text


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


class RaisingObserver:
    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        raise ZeroDivisionError("of the observer")


def test_an_observer_that_raises_is_counted_and_every_request_is_answered(
    batchers: Batchers, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        batcher = batchers(GatedEngine(max_batch_size=2, open_=True), workers=1, observer=RaisingObserver())
        for value in range(4):
            assert values((await batcher.compute([prepare_rows(value, rows=5)], 5))[0]) == list(range(value, value + 5))
        assert eventually(lambda: batcher.worker_failures >= 4)

    run(test())
    assert "of the observer" in caplog.text


def test_an_exception_of_a_worker_fails_its_image_only(
    batchers: Batchers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(self: CpuAffinity, *, queueing: bool) -> None:
        if failing:
            raise failing.pop()

    async def test() -> None:
        batcher = batchers(GatedEngine(open_=True), workers=1)
        for error in (OSError("no such CPU"), SystemExit(3)):
            failing.append(error)
            (outcome,) = await batcher.compute([prepare_rows(1)], 1)
            assert isinstance(outcome, Exception)
            assert to_api_error(outcome).reason == "INTERNAL"
            assert values((await batcher.compute([prepare_rows(2)], 1))[0]) == [2]
        assert batcher.worker_failures == 2

    failing: list[BaseException] = []
    monkeypatch.setattr(CpuAffinity, "begin", begin)
    run(test())
    assert "no such CPU" in caplog.text


class FaultyEngine(GatedEngine):
    """Returns too few rows, or raises."""

    def __init__(self, *faults: BaseException) -> None:
        super().__init__(open_=True)
        self._faults = list(faults)

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._faults:
            raise self._faults.pop()
        return super().run(images_NHWC)[:-1]


@pytest.mark.parametrize("fault", [None, SystemExit(3)])
def test_any_fault_of_an_engine_is_the_outcome_of_its_rows(batchers: Batchers, fault: BaseException | None) -> None:
    async def test() -> None:
        batcher = batchers(FaultyEngine(*[fault] if fault else []), workers=1)
        (outcome,) = await batcher.compute([prepare_rows(0, rows=3)], 3)
        assert isinstance(outcome, InferenceError)

    run(test())


def test_a_lost_device_is_reported_once_its_rows_have_failed(batchers: Batchers) -> None:
    async def test() -> None:
        reasons: list[str] = []
        batcher = batchers(FaultyEngine(DeviceLost("error 700")), workers=1, on_device_lost=reasons.append)
        (outcome,) = await batcher.compute([prepare_rows(1)], 1)
        assert isinstance(outcome, InferenceError)
        assert eventually(lambda: reasons == ["error 700"])

    run(test())


def test_an_image_that_cannot_be_prepared_affects_no_other(batchers: Batchers) -> None:
    class Broken(Exception):
        pass

    def broken() -> NDArray[np.uint8]:
        raise Broken

    async def test() -> None:
        engine = GatedEngine(open_=True)
        outcomes = await batchers(engine).compute([prepare_rows(1), broken, prepare_rows(2)], 1)
        assert values(outcomes[0]) == [1]
        assert isinstance(outcomes[1], Broken)
        assert values(outcomes[2]) == [2]
        assert sorted(row for call in engine.calls for row in call) == [1, 2]

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


@settings(max_examples=25, deadline=None)
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
