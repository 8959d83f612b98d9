"""Shadow versions never delay or change an answer: they wait, fail, hang, are dropped and unloaded beside it."""

import asyncio
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.api.predictions import SignedPrediction
from serving.bundle.model_version import ModelVersion
from serving.shadows.queue import AFTER_ANSWER_S
from tests.support.bundles import write_bundle
from tests.support.images import encoded
from tests.support.shadows import GatedShadow, ShadowedService, failing_graph, with_graph, with_shadow
from tests.support.statistics import RED
from tests.support.waiting import LIMIT_S

PNG = encoded(Image.new("RGB", (90, 70), "red"), "PNG")


def write_models(folder: Path, **shadow: Any) -> None:
    write_bundle(folder / "models")
    write_bundle(folder / "models", version=2, **shadow)


def chosen(predictions: list[SignedPrediction]) -> list[int]:
    return [prediction.record.shadow_version for prediction in predictions]


@pytest.mark.parametrize("how", ["nan", "raises"])
def test_a_shadow_version_that_fails_changes_no_answer_and_is_reported(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_models(tmp_path, **with_graph(failing_graph(64, how=how)))

    async def test(served: ShadowedService) -> None:
        predictions = await served.classify(RED, PNG)
        await served.finished(2)
        assert served.images == {"failed": 2}
        assert [each.ranking_K[0] for each in predictions] == [2, 2]
        await served.label(*((each, "red") for each in predictions))
        assert served.labels == {"unknown": 2}
        assert {each.version.version: each.confusion.total for each in served.store.read()} == {1: 2}
        assert served.budget.taken == 0
        assert len(served.shadow_labels) == 0

    with_shadow(tmp_path, test)
    assert "the shadow version models/colours/versions/2 failed, and nothing else is affected" in caplog.text


def test_one_image_at_a_time_is_computed_while_answers_go_on(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        engine = served.gate()
        assert chosen(await served.classify(RED, RED)) == [2, 2]
        await engine.begun()
        for _ in range(5):  # the shadow version hangs, and every request is answered
            assert chosen(await served.classify(RED)) == [2]
        assert engine.calls == 1
        assert len(served.queue) == 7
        engine.release(7)
        await served.finished(7)
        assert engine.calls == 7
        assert len(served.queue) == 0

    with_shadow(tmp_path, test)


async def computed_while_requested(served: ShadowedService, release: Event) -> tuple[GatedShadow, asyncio.Task[Any]]:
    """Let the shadow version begin an image, and then begin a request of one view, which ends at `release`."""
    engine = served.gate()
    await served.classify(RED)
    await engine.begun()
    assert engine.orders == []  # the request of that image had ended before the image was begun

    def slow() -> NDArray[np.uint8]:
        release.wait(LIMIT_S)
        return np.zeros((1, 64, 64, 3), np.uint8)

    batcher = served.repository.find("colours", 1).classifier.batcher
    return engine, asyncio.create_task(batcher.compute([slow], 1))


def test_images_wait_while_requests_are_in_progress(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        release = Event()
        engine, request = await computed_while_requested(served, release)
        await served.classify(RED, version=2)
        engine.release()
        await served.finished(1)
        await served.classify(RED)
        await asyncio.sleep(10 * AFTER_ANSWER_S)  # it would have begun by now
        assert engine.calls == 1
        assert len(served.queue) == 1
        release.set()
        await request
        await served.classify(RED, version=2)  # the end of a request
        await engine.begun()
        engine.release()
        await served.finished(2)

    with_shadow(tmp_path, test)


def test_a_request_pauses_the_image_that_is_computed_and_its_end_resumes_it(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        release = Event()
        engine, request = await computed_while_requested(served, release)
        await served.classify(RED)
        await asyncio.sleep(10 * AFTER_ANSWER_S)
        assert engine.orders == ["pause"]  # another request is in progress
        release.set()
        await request
        await served.classify(RED)
        while engine.orders != ["pause", "resume"]:
            await asyncio.sleep(AFTER_ANSWER_S)
        engine.release(3)
        await served.finished(3)
        assert served.images == {"ok": 3}

    with_shadow(tmp_path, test)


def test_an_image_that_ends_while_it_is_paused_is_resumed_for_the_next_one(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        engine = served.gate()
        await served.classify(RED)
        await engine.begun()
        request = asyncio.create_task(served.classify(RED))
        while engine.orders != ["pause"]:
            await asyncio.sleep(0)
        engine.release()
        await request
        await engine.begun()
        assert engine.orders == ["pause", "resume"]
        engine.release()
        await served.finished(2)

    with_shadow(tmp_path, test)


def test_images_that_do_not_fit_are_dropped_and_their_tokens_name_no_shadow_version(tmp_path: Path) -> None:
    write_models(tmp_path)
    row_bytes = 64 * 64 * 3

    async def test(served: ShadowedService) -> None:
        engine = served.gate()
        first = await served.classify(RED, RED, RED)
        assert sorted(chosen(first)) == [0, 2, 2]
        assert served.images == {"full": 1}
        assert served.budget.taken == 2 * row_bytes
        assert chosen(await served.classify(RED)) == [0]
        engine.release(2)
        await served.finished(4)
        assert served.budget.taken == 0
        assert chosen(await served.classify(RED)) == [2]
        engine.release()
        await served.finished(5)
        await served.label(*((each, "red") for each in first))
        assert served.labels == {"joined": 2}

    with_shadow(tmp_path, test, budget=2 * row_bytes)


def test_a_shadow_version_that_is_unloaded_or_replaced_drops_what_waits_for_it(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        engine = served.gate()
        await served.classify(RED, RED)
        await engine.begun()
        served.repository.retire([ModelVersion("colours", 2)], "its folder was removed")
        engine.release()
        await served.finished(2)
        assert served.images == {"ok": 1, "unloaded": 1}
        assert chosen(await served.classify(RED)) == [0]
        served.load(2)
        assert chosen(await served.classify(RED)) == [2]
        await served.finished(3)
        assert served.images == {"ok": 2, "unloaded": 1}

    with_shadow(tmp_path, test)


def test_requests_that_fail_or_name_another_version_keep_nothing(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        model = served.repository.find("colours", None)
        spec = served.service.check(model, 1, None, False)
        good, bad = await served.service.classify(spec, [RED, b"no image"], ["", ""], LIMIT_S, references=["", ""])
        assert isinstance(good, SignedPrediction)
        assert isinstance(bad, Exception)
        with pytest.raises(TimeoutError):
            await served.service.classify(spec, [RED], [""], 0.0, references=[""])
        outcomes = await served.service.compute(spec, [RED, RED], LIMIT_S)
        served.service.discard(outcomes)
        cancelled = asyncio.create_task(
            served.service.classify(spec, [RED] * 8, [""] * 8, LIMIT_S, references=[""] * 8)
        )
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert chosen(await served.classify(RED, version=2)) == [0]
        await served.finished(1)
        assert served.images == {"ok": 1}
        while served.budget.taken:  # a worker may still be at it
            await asyncio.sleep(0.001)

    with_shadow(tmp_path, test)


def test_a_stop_does_not_wait_for_a_shadow_version_that_hangs(tmp_path: Path) -> None:
    write_models(tmp_path)
    hanging: list[GatedShadow] = []

    async def test(served: ShadowedService) -> None:
        hanging.append(served.gate())
        await served.classify(RED, RED)
        await hanging[0].begun()

    with_shadow(tmp_path, test)  # ends, though nothing releases the engine
    assert hanging[0].calls == 1
    hanging[0].release()
