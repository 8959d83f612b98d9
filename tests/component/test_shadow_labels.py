"""Labels and results of shadow versions are joined once, in any order; forgotten results are looked up first."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serving.api.predictions import SignedPrediction
from serving.bundle.model_version import ModelVersion
from serving.statistics.labels import Label, ShadowResult
from serving.statistics.shadows.joining import LOOKUP_BATCH, ShadowLabels
from serving.statistics.store import StatisticsStore
from serving.tokens.tokens import PredictionRecord
from tests.support.bundles import write_bundle
from tests.support.shadows import ShadowedService, with_shadow
from tests.support.statistics import CAT, CLASSES, DOG, LONG_AGO_MS, RED, locked, matrix
from tests.support.waiting import LIMIT_S

BLUE_INDEX, RED_INDEX = 0, 2
"""Of the classes blue, green, red."""


def write_models(folder: Path) -> None:
    """A version that knows colours, and a shadow version that takes red for blue."""
    write_bundle(folder / "models")
    write_bundle(folder / "models", version=2, classes=("red", "green", "blue"))


def outcomes(served: ShadowedService, version: int) -> list[list[int]]:
    """Actual class, predicted class and count of each cell of a version's confusion matrix that has labels."""
    query = (
        f"SELECT actual, predicted, sum(count) FROM outcomes WHERE version = {version} GROUP BY 1, 2 HAVING sum(count)"
    )
    return sorted([*row] for row in served.rows(query))


def pairs(served: ShadowedService) -> list[list[int]]:
    """Actual class, whether the version and the shadow version were correct, and count."""
    query = "SELECT actual, version_correct, shadow_correct, count FROM paired_outcomes WHERE count"
    return sorted([*row] for row in served.rows(query))


Order = Callable[[ShadowedService], Awaitable[SignedPrediction]]


async def result_first(served: ShadowedService) -> SignedPrediction:
    (prediction,) = await served.classify(RED)
    await served.finished(1)
    await served.label((prediction, "red"))
    assert served.labels == {"joined": 1}
    return prediction


async def label_first(served: ShadowedService) -> SignedPrediction:
    engine = served.gate()
    (prediction,) = await served.classify(RED)
    await engine.begun()
    await served.label((prediction, "red"))
    assert served.labels == {"later": 1}
    engine.release()
    return prediction


async def with_the_image(served: ShadowedService) -> SignedPrediction:
    engine = served.gate()
    (prediction,) = await served.classify(RED, labels=["red"])
    assert served.labels == {"later": 1}
    assert outcomes(served, 1) == [[RED_INDEX, RED_INDEX, 1]]
    engine.release()
    return prediction


async def result_while_the_label_is_written(served: ShadowedService) -> SignedPrediction:
    engine = served.gate()
    (prediction,) = await served.classify(RED)
    await engine.begun()
    with locked(served.folder / "statistics.sqlite"):
        labelling = asyncio.create_task(served.label((prediction, "red")))
        engine.release()
        await served.finished(1)
        assert not labelling.done()
    await labelling
    return prediction


@pytest.mark.parametrize("order", [result_first, label_first, with_the_image, result_while_the_label_is_written])
def test_a_label_counts_once_for_both_versions_in_any_order_and_corrections_move_both(
    tmp_path: Path, order: Order
) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        prediction = await order(served)
        await served.joined(1)
        assert outcomes(served, 1) == [[RED_INDEX, RED_INDEX, 1]]
        assert outcomes(served, 2) == [[0, 2, 1]]  # by the shadow version's own order of classes
        assert pairs(served) == [[RED_INDEX, 1, 0, 1]]
        await served.label((prediction, "red"), (prediction, "red"))  # again
        assert pairs(served) == [[RED_INDEX, 1, 0, 1]]
        await served.label((prediction, "blue"))
        assert outcomes(served, 1) == [[BLUE_INDEX, RED_INDEX, 1]]
        assert outcomes(served, 2) == [[2, 2, 1]]
        assert pairs(served) == [[BLUE_INDEX, 0, 1, 1]]
        assert served.labels.total() == 1
        assert len(served.shadow_labels) == 0

    with_shadow(tmp_path, test)


def test_a_label_that_could_not_be_recorded_meets_the_result_when_it_is_sent_again(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def test(served: ShadowedService) -> None:
        (prediction,) = await served.classify(RED)
        await served.finished(1)
        database = served.folder / "statistics.sqlite"
        database.rename(tmp_path / "away")
        with pytest.raises(Exception, match="statistics"):
            await served.label((prediction, "red"))
        (tmp_path / "away").rename(database)
        await served.label((prediction, "red"))
        assert pairs(served) == [[RED_INDEX, 1, 0, 1]]

    with_shadow(tmp_path, test)


def test_results_that_wait_at_a_stop_are_looked_up_in_the_database(tmp_path: Path) -> None:
    write_models(tmp_path)

    async def predict(served: ShadowedService) -> None:
        (prediction, _) = await served.classify(RED, RED)
        await served.finished(2)
        # as another server of the same database does
        with StatisticsStore(served.folder / "statistics.sqlite") as other:
            other.record([Label(prediction.record, RED_INDEX)]).result(LIMIT_S)
        assert pairs(served) == []

    async def read(served: ShadowedService) -> None:
        assert pairs(served) == [[RED_INDEX, 1, 0, 1]]

    with_shadow(tmp_path, predict)
    with_shadow(tmp_path, read)


def record(number: int) -> PredictionRecord:
    return PredictionRecord(number.to_bytes(16), "pets", 1, CAT, 0.75, LONG_AGO_MS, shadow_version=2)


def test_forgotten_results_are_looked_up_and_unknown_labels_are_reported_to_other_processes(
    store: StatisticsStore, path: Path
) -> None:
    store.register_version(ModelVersion("pets", 2), CLASSES)
    told: list[bytes] = []
    now = 0.0

    async def test() -> None:
        nonlocal now
        results: list[str] = []
        labels = ShadowLabels(store, lambda version, result: results.append(result), max_age_s=100.0, clock=lambda: now)
        labels.on_unknown = told.extend
        cat, early = ShadowResult(2, CAT, 0.9), [record(number) for number in range(LOOKUP_BATCH)]
        for each in early:
            labels.expect(each.id)
            labels.finish(each.id, cat)
        # two of them are labelled by other servers: one is a process of this server, which tells its IDs
        await asyncio.wrap_future(store.record([Label(early[0], DOG), Label(early[1], DOG)]))
        labels.recorded_elsewhere([early[0].id, b"unknown here 123"])
        while matrix(store, version=2) != [[0, 0], [1, 0]]:
            await asyncio.sleep(0.005)
        extra = record(LOOKUP_BATCH)
        labels.expect(extra.id)
        labels.finish(extra.id, cat)
        now = 100.0
        labels.expect(record(LOOKUP_BATCH + 1).id)  # the others are forgotten now
        while matrix(store, version=2) != [[0, 0], [2, 0]]:
            await asyncio.sleep(0.005)
        late = Label(record(5), DOG)
        assert labels.join(late) == late
        outcome = await asyncio.wrap_future(store.record([late]))
        labels.recorded([late], outcome)
        assert told == [late.record.id]
        assert results == ["unknown"]
        labels.close()

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))
