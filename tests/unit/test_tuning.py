"""The candidates that `tune` measures, and the one that it chooses."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.bundle.folder import open_version
from serving.bundle.model_version import ModelVersion
from serving.engine.base import EngineLayout, InferenceError
from serving.models.layout import read_layout
from serving.models.tuning import (
    Measurement,
    Result,
    TuningError,
    candidates,
    choose_best,
    measure_all,
    measure_layout,
    measure_rate,
    tune_model,
)
from tests.support.bundles import OPTIONS, write_bundle


def layout(instances: int, threads: int, batch: int) -> EngineLayout:
    return EngineLayout(instances=instances, threads=threads, max_batch_size=batch)


def measured(rate: float | None) -> Measurement:
    return Measurement(latency_s=0.01, batch_s=0.02, rows_per_second=rate)


def sides(cpus: int, *, on_gpu: bool = False) -> set[tuple[int, int, int]]:
    """Instances, threads, and threads for single requests."""
    found = candidates(cpus=cpus, on_gpu=on_gpu, max_batch_size=None)
    return {(each.instances, each.threads, each.single_row_threads) for each in found}


def test_candidates_use_all_cpus() -> None:
    assert sides(1) == {(1, 1, 0)}
    assert sides(2) == {(2, 1, 2), (1, 2, 0)}
    assert sides(8) == {(8, 1, 8), (4, 2, 8), (2, 4, 8), (1, 8, 0)}
    assert sides(64) == {(64, 1, 8), (2, 32, 0), (1, 64, 0)}
    assert sides(8, on_gpu=True) == {(1, 1, 0), (2, 1, 0)}


def test_single_threaded_instances_side_by_side_have_small_batches() -> None:
    found = candidates(cpus=2, on_gpu=False, max_batch_size=None)
    batches = {
        instances: [each.max_batch_size for each in found if each.instances == instances] for instances in (2, 1)
    }
    assert batches == {2: [1, 2, 4], 1: [1, 2, 4, 8, 16]}


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("most", [1, 3, 64])
def test_no_candidate_has_more_rows_than_the_file_takes(on_gpu: bool, most: int) -> None:
    found = candidates(cpus=2, on_gpu=on_gpu, max_batch_size=most)
    assert found
    assert all(each.max_batch_size <= most for each in found)


def best(rates: dict[EngineLayout, float | None], preferred: int = 4) -> EngineLayout:
    return choose_best([Result(each, measured(rate)) for each, rate in rates.items()], preferred).layout


def test_the_fastest_wins_and_carries_its_figures() -> None:
    tuned = choose_best([Result(layout(2, 1, 1), measured(100)), Result(layout(2, 1, 4), measured(200))], 4)
    assert (tuned.layout, tuned.rows_per_second, tuned.latency_s) == (layout(2, 1, 4), 200, 0.01)


def test_several_threads_must_be_much_faster() -> None:
    assert best({layout(2, 1, 4): 100, layout(1, 2, 4): 120}) == layout(2, 1, 4)
    assert best({layout(2, 1, 4): 100, layout(1, 2, 4): 200}) == layout(1, 2, 4)


def test_of_batches_that_are_about_as_fast_the_preferred_one_is_taken() -> None:
    rates: dict[EngineLayout, float | None] = {layout(1, 1, 1): 90, layout(1, 1, 4): 95, layout(1, 1, 16): 100}
    assert best(rates) == layout(1, 1, 4)
    assert best({**rates, layout(1, 1, 16): 200}) == layout(1, 1, 16)


def test_a_batch_over_the_latency_bound_is_not_chosen() -> None:
    assert best({layout(1, 1, 4): 100, layout(1, 1, 16): None}) == layout(1, 1, 4)


def test_a_candidate_that_fails_is_reported_and_never_wins() -> None:
    failing, good = layout(2, 1, 4), layout(1, 1, 4)
    reported: list[Result] = []

    def measure(each: EngineLayout) -> Measurement:
        if each == failing:
            raise InferenceError("the device is gone")
        return measured(1)

    results = measure_all([failing, good], measure, reported.append)
    assert reported == results
    assert results[0].outcome == "InferenceError: the device is gone"
    assert choose_best(results, 4).layout == good


def test_if_all_fail_the_first_reason_is_reported() -> None:
    results = [Result(layout(1, 1, 1), "MemoryError: too little"), Result(layout(1, 1, 2), "ValueError: no")]
    with pytest.raises(TuningError, match="none of the 2 layouts.*too little"):
        choose_best(results, 4)


class FailingClassifier:
    """Answers a few images, and then with the errors of an engine, which are outcomes and not exceptions."""

    def __init__(self) -> None:
        self.calls = 0

    async def classify(self, images: Sequence[bytes]) -> list[Any]:
        await asyncio.sleep(0)
        self.calls += 1
        return ["cat" if self.calls < 10 else InferenceError("the device is gone")]


def test_an_engine_error_is_no_answer() -> None:
    with pytest.raises(InferenceError, match="the device is gone"):
        asyncio.run(measure_rate(FailingClassifier(), b"", clients=4, seconds=0, least=1000))  # type: ignore[arg-type]


def test_a_real_model_is_measured_as_it_is_served(tmp_path: Path) -> None:
    bundle = open_version(write_bundle(tmp_path).parent.parent, ModelVersion("colours", 1))
    measurement = measure_layout(bundle, OPTIONS, layout(2, 1, 2), 8, latency_bound_s=60, seconds=0)
    assert measurement.rows_per_second is not None
    bounded = measure_layout(bundle, OPTIONS, layout(1, 1, 2), 8, latency_bound_s=0, seconds=0)
    assert bounded.rows_per_second is None
    alone = measure_layout(bundle, OPTIONS, layout(1, 1, 1), 8, latency_bound_s=0, seconds=0)
    assert alone.rows_per_second is not None


def test_an_interrupted_measurement_keeps_the_earlier_layout(tmp_path: Path) -> None:
    bundle = open_version(write_bundle(tmp_path).parent.parent, ModelVersion("colours", 1))
    folder = tmp_path / "layouts"
    first, path = tune_model(bundle, OPTIONS, folder, latency_bound_ms=1000, seconds=0, report=lambda _: None)
    before = path.read_bytes()

    def interrupt(_: Result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_model(bundle, OPTIONS, folder, latency_bound_ms=1000, seconds=0, report=interrupt)
    assert path.read_bytes() == before
    assert read_layout(folder, path.stem) == first
