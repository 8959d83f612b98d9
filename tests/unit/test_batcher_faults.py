"""Batching: faults of engines, images, observers and workers affect only the requests they belong to."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.api.errors import to_api_error
from serving.batching.affinity import CpuAffinity
from serving.batching.requests import RowSlice
from serving.engine.base import DeviceLost, InferenceError
from tests.support.batching import Batchers, GatedEngine, begun, prepare_rows, prepared, run, values
from tests.support.waiting import eventually


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
