"""Plans that are tried, measured, kept and taken again; and what an operator fixed stays fixed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

import serving.models.loader
from serving.bundle.folder import open_version
from serving.bundle.model_version import ModelVersion
from serving.engine.base import Engine, EngineLayout
from serving.image.preprocess import Preprocess
from serving.models.layout import LayoutOptions, TunedLayout, candidates, unmeasured, worker_cpus
from serving.models.loader import ServedModel, ServingOptions, load_model
from serving.models.tuning import search
from tests.support.bundles import OPTIONS, write_bundle

QUICK = LayoutOptions(seconds=0.2)


def layouts(
    options: LayoutOptions, cpus: int, *, on_gpu: bool = False, most: int | None = None
) -> set[tuple[int, int]]:
    plans = candidates(options, cpus=cpus, on_gpu=on_gpu, max_batch_size=most)
    return {(plan.instances, plan.threads) for plan in plans}


def test_layouts_use_all_cpus_and_what_is_given_is_kept() -> None:
    assert layouts(LayoutOptions(), 1) == {(1, 1)}
    assert layouts(LayoutOptions(), 2) == {(2, 1), (1, 2)}
    assert layouts(LayoutOptions(), 8) == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert layouts(LayoutOptions(), 64) == {(64, 1), (2, 32), (1, 64)}
    assert layouts(LayoutOptions(threads=4), 8) == {(2, 4)}
    assert layouts(LayoutOptions(threads=4), 2) == {(1, 4)}
    assert layouts(LayoutOptions(instances=3), 2) == {(3, 1)}
    assert layouts(LayoutOptions(instances=3, threads=5), 2) == {(3, 5)}
    assert layouts(LayoutOptions(), 8, on_gpu=True) == {(1, 1), (2, 1)}


def test_single_threaded_instances_side_by_side_get_small_batches_unless_told() -> None:
    plans = candidates(LayoutOptions(), cpus=2, on_gpu=False, max_batch_size=None)
    batches = {layout: [plan.max_batch_size for plan in plans if plan.instances == layout] for layout in (2, 1)}
    assert batches == {2: [1, 2, 4], 1: [1, 2, 4, 8, 16]}
    told = candidates(LayoutOptions(max_batch_size=16), cpus=2, on_gpu=False, max_batch_size=None)
    assert {(plan.instances, plan.max_batch_size) for plan in told} == {(2, 16), (1, 16)}


@pytest.mark.parametrize(
    ("options", "cpus", "on_gpu", "expected"),
    [
        (LayoutOptions(), 1, False, {(1, 0)}),
        (LayoutOptions(), 2, False, {(1, 2), (2, 0)}),
        (LayoutOptions(), 16, False, {(1, 8), (8, 0), (16, 0)}),
        (LayoutOptions(max_batch_size=4), 2, False, {(1, 2), (2, 0)}),
        (LayoutOptions(threads=1), 2, False, {(1, 0)}),
        (LayoutOptions(instances=2), 2, False, {(1, 0)}),
        (LayoutOptions(), 2, True, {(1, 0)}),
    ],
)
def test_a_lone_row_gets_more_threads_than_the_instances_have_unless_they_are_given(
    options: LayoutOptions, cpus: int, on_gpu: bool, expected: set[tuple[int, int]]
) -> None:
    plans = candidates(options, cpus=cpus, on_gpu=on_gpu, max_batch_size=None)
    assert {(plan.threads, plan.single_row_threads) for plan in plans} == expected


def test_workers_are_bound_where_they_compute_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.models.layout.bindable_cpus", lambda: [1, 0])
    single = EngineLayout(instances=2, threads=1, max_batch_size=1)
    assert worker_cpus(single, on_gpu=False) == [1, 0]
    assert worker_cpus(single, on_gpu=True) == []
    assert worker_cpus(replace(single, threads=2), on_gpu=False) == []
    monkeypatch.setattr("serving.models.layout.bindable_cpus", lambda: list(range(16)))
    assert worker_cpus(replace(single, instances=16), on_gpu=False) == []


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("most", [None, 1, 3, 64])
def test_batches_are_those_that_the_file_takes(on_gpu: bool, most: int | None) -> None:
    plans = candidates(LayoutOptions(), cpus=2, on_gpu=on_gpu, max_batch_size=most)
    assert all(plan.max_batch_size <= (most or 10_000) for plan in plans)
    assert unmeasured(plans, 4, on_gpu=on_gpu) in plans
    (plan,) = {
        plan.max_batch_size
        for plan in candidates(LayoutOptions(max_batch_size=7), cpus=2, on_gpu=on_gpu, max_batch_size=most)
    }
    assert plan == min(7, most or 7)


class TimedEngine:
    """Takes a while for each call, and a while for each row, while others may run."""

    def __init__(self, plan: EngineLayout, call_s: float, row_s: float) -> None:
        self.max_batch_size = plan.max_batch_size
        self.call_s, self.row_s = call_s, row_s / plan.threads
        self.closed = False

    def run(self, images_NHWC: np.ndarray) -> np.ndarray:
        assert not self.closed
        end = self.call_s + self.row_s * len(images_NHWC)
        serving.models.tuning.time.sleep(end)
        return np.full((len(images_NHWC), 2), 0.5, np.float32)

    def close(self) -> None:
        self.closed = True


def chosen_with(call_s: float, row_s: float, latency_bound_ms: float = 1000) -> tuple[EngineLayout, list[TimedEngine]]:
    made: list[TimedEngine] = []

    def make(plan: EngineLayout) -> list[Engine]:
        assert all(engine.closed for engine in made), "two layouts are loaded at once"
        engines = [TimedEngine(plan, call_s, row_s) for _ in range(plan.instances)]
        made.extend(engines)
        return list(engines)

    plans = candidates(LayoutOptions(), cpus=2, on_gpu=True, max_batch_size=16)
    chosen = search(
        plans,
        make,
        Preprocess(resize=72, crop=64),
        cpus=2,
        on_gpu=True,
        moderate=32,
        latency_bound_ms=latency_bound_ms,
        seconds=1,
    )
    assert chosen.rows_per_second is not None
    assert chosen.latency_s == pytest.approx(call_s + row_s, rel=1)
    return chosen.plan, made


def test_large_batches_win_where_a_call_is_dear_and_the_bound_limits_them() -> None:
    plan, made = chosen_with(call_s=0.02, row_s=0.0002)
    assert plan.max_batch_size == 16
    assert all(engine.closed for engine in made)
    bounded, _ = chosen_with(call_s=0.02, row_s=0.004, latency_bound_ms=60)  # a batch of 16 takes 84 ms
    assert bounded.max_batch_size == 4


def searched_on_two_cpus(plans: list[EngineLayout], make: Callable[[EngineLayout], list[Engine]]) -> TunedLayout:
    return search(
        plans,
        make,
        Preprocess(resize=72, crop=64),
        cpus=2,
        on_gpu=False,
        moderate=2,
        latency_bound_ms=1000,
        seconds=0.6,
    )


def test_a_layout_that_is_faster_is_found_though_its_engines_are_slower() -> None:
    plans = candidates(LayoutOptions(), cpus=2, on_gpu=False, max_batch_size=4)

    # two threads make a call 1.4 times as fast, and two instances serve twice as much
    def make(plan: EngineLayout) -> list[Engine]:
        return [TimedEngine(plan, 0.0, 0.004 * (1.43 if plan.threads == 2 else 1)) for _ in range(plan.instances)]

    chosen = searched_on_two_cpus(plans, make)
    assert (chosen.plan.instances, chosen.plan.threads) == (2, 1)


@pytest.mark.parametrize(("speed", "threads"), [(1.0, 1), (3.0, 2)])
def test_more_threads_are_taken_only_where_they_are_much_faster(speed: float, threads: int) -> None:
    one_at_a_time = Lock()  # as if there was one CPU: side by side, single-threaded instances are no faster than one

    class Busy(TimedEngine):
        def run(self, images_NHWC: np.ndarray) -> np.ndarray:
            with one_at_a_time:
                return super().run(images_NHWC)

    def make(plan: EngineLayout) -> list[Engine]:
        row_s = 0.006 if plan.threads == 1 else 0.006 / speed * plan.threads
        return [Busy(plan, 0.0, row_s) for _ in range(plan.instances)]

    plans = candidates(LayoutOptions(max_batch_size=1), cpus=2, on_gpu=False, max_batch_size=None)
    chosen = searched_on_two_cpus(plans, make)
    assert chosen.plan.threads == threads


@pytest.fixture
def options(tmp_path: Path) -> ServingOptions:
    return replace(OPTIONS, layout=QUICK, layouts=tmp_path / "layouts")


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was measured."""
    found: list[Any] = []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        found.append(search(*arguments, **keywords))
        return found[-1]

    monkeypatch.setattr(serving.models.loader, "search", counted)
    return found


def load(models: Path, options: ServingOptions, version: int = 1, **keywords: Any) -> ServedModel:
    model = load_model(open_version(models, ModelVersion("colours", version)), options, **keywords)
    model.close()
    return model


def test_a_plan_is_measured_once_and_taken_again(tmp_path: Path, options: ServingOptions, searches: list[Any]) -> None:
    write_bundle(tmp_path)
    first, again = load(tmp_path, options), load(tmp_path, options)
    assert len(searches) == 1
    assert again.chosen == first.chosen == searches[0]
    assert first.chosen.rows_per_second > 0
    assert "measured" in first.engine_reason
    load(tmp_path, replace(options, layout=replace(QUICK, threads=1)))  # another question, another answer
    assert len(searches) == 2


def test_a_damaged_plan_is_measured_again_and_replaced(
    tmp_path: Path, options: ServingOptions, searches: list[Any]
) -> None:
    write_bundle(tmp_path)
    load(tmp_path, options)
    (kept,) = (tmp_path / "layouts").iterdir()
    fields = json.loads(kept.read_text())
    fields["plan"]["instances"] = 1.5
    for damage in ("", "{", "[]", "null", '{"plan": {"instances": 0}}', "\0" * 100, json.dumps(fields)):
        already = len(searches)
        kept.write_text(damage)
        load(tmp_path, options)
        assert len(searches) == already + 1, damage
        load(tmp_path, options)
        assert len(searches) == already + 1, damage
        assert list((tmp_path / "layouts").iterdir()) == [kept]


def test_a_folder_that_cannot_be_written_costs_only_the_measurement(
    tmp_path: Path, options: ServingOptions, searches: list[Any]
) -> None:
    write_bundle(tmp_path)
    (tmp_path / "layouts").write_text("in the way")
    assert load(tmp_path, options).chosen == searches[0]


def test_a_new_version_of_the_same_network_takes_over_the_plan_and_under_load_nothing_is_measured(
    tmp_path: Path, options: ServingOptions, searches: list[Any]
) -> None:
    write_bundle(tmp_path)
    write_bundle(tmp_path, version=2, slowness=1)
    first = load(tmp_path, options)
    second = load(tmp_path, options, 2, alike=first, quiet=False)
    assert second.chosen.plan == first.chosen.plan
    assert "models/colours/versions/1" in second.engine_reason
    assert "not measured" in load(tmp_path, options, 2, quiet=False).engine_reason
    assert len(searches) == 1


def test_what_is_given_in_full_is_not_measured(tmp_path: Path, searches: list[Any]) -> None:
    write_bundle(tmp_path)
    model = load(tmp_path, replace(OPTIONS, layout=LayoutOptions(instances=3, threads=2, max_batch_size=5)))
    assert (model.chosen.plan, model.chosen.rows_per_second) == (
        EngineLayout(instances=3, threads=2, max_batch_size=5),
        None,
    )
    assert "--instances 3 --threads 2 --max-batch-size 5" in model.engine_reason
    assert searches == []
