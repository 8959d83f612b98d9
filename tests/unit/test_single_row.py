"""Single requests: computed the faster way, on bound CPUs, and one at a time."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import serving.system.cpus
from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.requests import Prepare
from serving.batching.workers import WorkerOptions
from serving.bundle.manifest import open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import OnnxModel
from serving.engine.single_row import EXPLORED, ONE_BY_ONE, REMEMBERED, SingleRowEngine, SpreadEngine
from serving.system.cpus import bindable_cpus
from tests.support.bundles import write_bundle
from tests.support.cgroups import V2_MOUNT, machine
from tests.support.waiting import LIMIT_S

ROW = np.zeros((1, 1, 1, 3), np.uint8)
ALLOWED = os.sched_getaffinity(0)


class Engine:
    """Takes a while by a clock of its own; remembers how many rows it computed, and on which CPUs."""

    now = 0.0
    """Seconds, which pass only while engines compute."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.max_batch_size = 4
        self.seconds = seconds
        self.calls: list[int] = []
        self.cpus: list[set[int]] = []
        self.failing = False

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append(len(images_NHWC))
        self.cpus.append(os.sched_getaffinity(0))
        if self.failing:
            raise RuntimeError("no")
        Engine.now += self.seconds
        return np.float32([[0.25, 0.75]] * len(images_NHWC))

    def close(self) -> None:
        pass


def spreading(engine: Engine, cpus: Sequence[int], rows_in_flight: Callable[[], int] = lambda: 1) -> SpreadEngine:
    """Spreads rows by a clock that advances only while engines compute."""
    return SpreadEngine(engine, cpus, rows_in_flight, lambda: Engine.now)


def one_by_one(engine: Engine, cpus: Sequence[int]) -> SpreadEngine:
    """Has computed enough single rows to spread the next."""
    spread = spreading(engine, cpus)
    for _ in range(ONE_BY_ONE):
        spread.run(Engine(), ROW)
    return spread


def test_single_rows_are_computed_the_way_that_is_faster_now() -> None:
    spread, usual = Engine(0.001), Engine(0.004)
    single = one_by_one(spread, [])
    for _ in range(4 * EXPLORED):
        single.run(usual, ROW)
    assert len(usual.calls) <= 6, "the slower way is tried first, and then one time in EXPLORED"
    spread.seconds = 0.02  # another program has taken a CPU
    for _ in range(2 * EXPLORED):
        single.run(usual, ROW)
    before = len(spread.calls)
    for _ in range(2 * EXPLORED):
        single.run(usual, ROW)
    assert len(spread.calls) - before <= 3
    spread.seconds = 0.001  # and has given it back
    for _ in range((REMEMBERED + 1) * EXPLORED):
        single.run(usual, ROW)
    before = len(usual.calls)
    for _ in range(EXPLORED):
        single.run(usual, ROW)
    assert len(usual.calls) - before <= 2


def test_one_slow_row_changes_nothing() -> None:
    spread, usual = Engine(), Engine(0.002)
    single = one_by_one(spread, [])
    for _ in range(REMEMBERED + 1):
        single.run(usual, ROW)
    spread.seconds, before = 0.05, len(spread.calls)
    single.run(usual, ROW)
    spread.seconds = 0
    single.run(usual, ROW)
    assert len(spread.calls) == before + 2


def test_the_thread_is_bound_while_it_computes_and_only_then() -> None:
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    spread, usual = Engine(), Engine(1)
    single = one_by_one(spread, [cpu])
    for _ in range(3):
        single.run(usual, ROW)
    assert all(cpus == {cpu} for cpus in spread.cpus)
    assert all(cpus == allowed for cpus in usual.cpus)
    assert os.sched_getaffinity(0) == allowed
    spread.failing = True
    with pytest.raises(RuntimeError, match="no"):
        single.run(usual, ROW)
    assert os.sched_getaffinity(0) == allowed


def test_a_cpu_that_was_taken_away_stops_nothing() -> None:
    spread, usual = Engine(), Engine(1)
    single = one_by_one(spread, [4095])
    for _ in range(3):
        assert single.run(usual, ROW).tolist() == [[0.25, 0.75]]
    assert spread.cpus[-1] == os.sched_getaffinity(0)


def test_cpus_that_are_taken_away_while_a_row_is_computed_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    class Losing(Engine):
        def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
            monkeypatch.setattr(serving.system.cpus.os, "sched_setaffinity", taken)
            return super().run(images_NHWC)

    single = one_by_one(Losing(), [max(os.sched_getaffinity(0))])
    assert single.run(Engine(1), ROW).tolist() == [[0.25, 0.75]]
    monkeypatch.undo()
    os.sched_setaffinity(0, ALLOWED)


def test_a_second_row_is_computed_the_usual_way() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Waiting(Engine):
        def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
            entered.set()
            assert leave.wait(LIMIT_S)
            return super().run(images_NHWC)

    spread, usual = Waiting(), Engine()
    single = one_by_one(spread, [])
    first = threading.Thread(target=single.run, args=(usual, ROW))
    first.start()
    assert entered.wait(LIMIT_S)
    single.run(usual, ROW)
    leave.set()
    first.join()
    assert (spread.calls, usual.calls) == ([1], [1])


@pytest.fixture
def batcher_of() -> Iterator[Callable[[Engine, Engine], DynamicBatcher]]:
    made: list[DynamicBatcher] = []

    def make(usual: Engine, spread: Engine) -> DynamicBatcher:
        admission = Admission(100)
        engine = SingleRowEngine(usual, spreading(spread, [], lambda: admission.rows))
        made.append(DynamicBatcher([engine], admission, WorkerOptions(count=2)))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def prepare_rows(rows: int = 1) -> Prepare:
    return lambda: np.zeros((rows, 1, 1, 3), np.uint8)


def test_only_a_row_without_others_in_flight_is_spread(batcher_of: Callable[[Engine, Engine], DynamicBatcher]) -> None:
    usual, spread = Engine(1), Engine()
    batcher = batcher_of(usual, spread)
    wanted = threading.Event()

    def slow() -> NDArray[np.uint8]:
        assert wanted.wait(LIMIT_S)
        return prepare_rows()()

    async def test() -> None:
        await batcher.compute([prepare_rows(2)], 2)
        await batcher.compute([prepare_rows(), prepare_rows()], 1)
        other = asyncio.create_task(batcher.compute([slow], 1))
        await asyncio.sleep(0)  # it is in flight
        for _ in range(5):
            await batcher.compute([prepare_rows()], 1)
        assert spread.calls == []
        wanted.set()
        await other  # alone by now
        for _ in range(ONE_BY_ONE + 5):
            await batcher.compute([prepare_rows()], 1)
        assert spread.calls == [1] * 6, "the first few are to show that no others come"

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))


def test_a_row_that_others_came_to_ends_the_spreading(
    batcher_of: Callable[[Engine, Engine], DynamicBatcher],
) -> None:
    entered, leave = threading.Event(), threading.Event()
    leave.set()

    class Waiting(Engine):
        def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
            entered.set()
            assert leave.wait(LIMIT_S)
            return super().run(images_NHWC)

    usual, spread = Engine(1), Waiting()
    batcher = batcher_of(usual, spread)

    async def test() -> None:
        for _ in range(ONE_BY_ONE + 3):
            await batcher.compute([prepare_rows()], 1)
        assert len(spread.calls) == 3
        entered.clear()
        leave.clear()
        first = asyncio.create_task(batcher.compute([prepare_rows()], 1))
        await asyncio.to_thread(entered.wait, LIMIT_S)
        second = asyncio.create_task(batcher.compute([prepare_rows()], 1))  # while the first one has all CPUs
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(first, second)
        before = len(spread.calls)
        for _ in range(ONE_BY_ONE - 1):
            await batcher.compute([prepare_rows()], 1)
        assert len(spread.calls) == before

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))


def test_the_spread_engine_computes_the_same(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    bundle = open_bundle(tmp_path / "colours" / "1")
    model = OnnxModel(bundle, bundle.manifest.artifacts[0])
    (usual,) = model.make_engines(EngineLayout(instances=1, threads=1, max_batch_size=1))
    crop = bundle.manifest.preprocess.crop
    rng = np.random.default_rng(0)
    for cpus in ([], bindable_cpus()):
        single = one_by_one(model.make_single_row_engine(2, cpus), cpus)
        for _ in range(5):
            image = rng.integers(0, 256, (1, crop, crop, 3), np.uint8)
            np.testing.assert_array_equal(single.run(usual, image), usual.run(image))


def test_threads_are_bound_only_where_all_cpus_are_this_process_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.system.cpus.os, "sched_getaffinity", lambda _: {3, 5, 6})
    monkeypatch.setattr(serving.system.cpus.os, "getpid", lambda: 4)
    assert bindable_cpus(tmp_path) == [5, 6, 3]
    quota = machine(tmp_path, V2_MOUNT, "0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert bindable_cpus(quota) == []
