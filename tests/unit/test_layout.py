"""The static rule for layouts, the options that win over it, and layouts that `tune` has written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serving.bundle.folder import open_version
from serving.bundle.model_version import ModelVersion
from serving.engine.base import EngineLayout
from serving.engine.selection import choose_engine
from serving.models.layout import (
    LayoutOptions,
    TunedLayout,
    default_layout,
    layout_key,
    read_layout,
    worker_cpus,
    write_layout,
)
from serving.models.loader import ServedModel, ServingOptions, load_model
from serving.system.cpus import available_cpus
from tests.support.bundles import OPTIONS, write_bundle

TUNED = TunedLayout(
    layout=EngineLayout(instances=1, threads=2, max_batch_size=3, single_row_threads=4),
    rows_per_second=123.5,
    latency_s=0.004,
)


def layout(instances: int, threads: int, max_batch_size: int, single_row_threads: int = 0) -> EngineLayout:
    return EngineLayout(
        instances=instances, threads=threads, max_batch_size=max_batch_size, single_row_threads=single_row_threads
    )


@pytest.mark.parametrize(
    ("options", "cpus", "precision", "expected"),
    [
        (LayoutOptions(), 1, "int8", layout(1, 1, 4)),
        (LayoutOptions(), 2, "int8", layout(2, 1, 4, 2)),
        (LayoutOptions(), 8, "fp32", layout(8, 1, 2, 8)),
        (LayoutOptions(), 64, "fp16", layout(64, 1, 2, 8)),
        (LayoutOptions(max_batch_size=16), 2, "int8", layout(2, 1, 16, 2)),
        (LayoutOptions(threads=4), 8, "int8", layout(2, 4, 4)),
        (LayoutOptions(threads=4), 2, "int8", layout(1, 4, 4)),
        (LayoutOptions(instances=3), 8, "fp32", layout(3, 2, 2)),
        (LayoutOptions(instances=3), 2, "fp32", layout(3, 1, 2)),
        (LayoutOptions(instances=3, threads=5, max_batch_size=7), 2, "fp32", layout(3, 5, 7)),
    ],
)
def test_on_a_cpu_each_cpu_gets_an_instance_unless_options_say_otherwise(
    options: LayoutOptions, cpus: int, precision: str, expected: EngineLayout
) -> None:
    assert default_layout(options, cpus=cpus, on_gpu=False, precision=precision) == expected


@pytest.mark.parametrize(
    ("options", "most", "expected"),
    [
        (LayoutOptions(), None, layout(2, 1, 32)),
        (LayoutOptions(), 64, layout(2, 1, 32)),
        (LayoutOptions(), 8, layout(2, 1, 8)),
        (LayoutOptions(instances=1), None, layout(1, 1, 32)),
        (LayoutOptions(max_batch_size=16), 8, layout(2, 1, 8)),
    ],
)
def test_on_a_gpu_there_are_two_instances_and_batches_that_the_engine_takes(
    options: LayoutOptions, most: int | None, expected: EngineLayout
) -> None:
    assert default_layout(options, cpus=4, on_gpu=True, precision="fp16", max_batch_size=most) == expected


def test_workers_are_bound_if_they_compute_themselves_on_a_few_cpus() -> None:
    single = layout(2, 1, 1)
    assert worker_cpus(single, [1, 0], on_gpu=False) == [1, 0]
    assert not worker_cpus(single, [1, 0], on_gpu=True)
    assert not worker_cpus(replace(single, threads=2), [1, 0], on_gpu=False)
    assert not worker_cpus(replace(single, instances=16), range(16), on_gpu=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def options(tmp_path: Path) -> ServingOptions:
    return replace(OPTIONS, layout=LayoutOptions(), layouts=tmp_path / "layouts")


def load(models: Path, options: ServingOptions, version: int = 1, previous: ServedModel | None = None) -> ServedModel:
    model = load_model(open_version(models, ModelVersion("colours", version)), options, previous=previous)
    model.close()
    return model


def write_tuned(models: Path, options: ServingOptions) -> Path:
    """Write TUNED as `tune` does."""
    choice = choose_engine(open_version(models, ModelVersion("colours", 1)), "auto", None)
    key = layout_key(choice.model_hash, choice.runtime, choice.device, available_cpus())
    assert options.layouts is not None
    return write_layout(options.layouts, key, TUNED)


def test_without_a_tuned_layout_nothing_is_measured_and_the_rule_is_used(models: Path, options: ServingOptions) -> None:
    model = load(models, options)
    assert model.layout == default_layout(LayoutOptions(), cpus=available_cpus(), on_gpu=False, precision="fp32")
    assert model.tuned is None
    assert "default" in model.engine_reason
    assert not (models.parent / "layouts").exists()


def test_a_tuned_layout_is_found_with_its_figures(models: Path, options: ServingOptions) -> None:
    write_tuned(models, options)
    model = load(models, options)
    assert (model.layout, model.tuned) == (TUNED.layout, TUNED)
    assert "tune" in model.engine_reason


def test_options_win_over_a_tuned_layout(models: Path, options: ServingOptions) -> None:
    write_tuned(models, options)
    model = load(models, replace(options, layout=LayoutOptions(instances=3, threads=2, max_batch_size=5)))
    assert (model.layout, model.tuned) == (layout(3, 2, 5), None)
    assert "--instances 3 --threads 2 --max-batch-size 5" in model.engine_reason


def test_a_tuned_layout_of_another_model_or_host_is_not_used(models: Path, options: ServingOptions) -> None:
    write_tuned(models, options)
    write_bundle(models, version=2, slowness=1)
    assert load(models, options, 2).tuned is None
    assert layout_key("hash", "tensorrt", "GPU 1", 4) != layout_key("hash", "tensorrt", "GPU 2", 4)


def test_a_new_version_of_the_same_network_takes_over_the_tuned_layout(models: Path, options: ServingOptions) -> None:
    write_tuned(models, options)
    write_bundle(models, version=2, slowness=1)
    write_bundle(models, version=3, slowness=2, arch="another")
    first = load(models, options)
    second = load(models, options, 2, previous=first)
    assert (second.layout, second.tuned) == (TUNED.layout, TUNED)
    assert "models/colours/versions/1" in second.engine_reason
    assert load(models, options, 3, previous=first).tuned is None


FIELDS = {"layout": {"instances": 1, "threads": 1, "max_batch_size": 1}, "rows_per_second": 1.0, "latency_s": 1.0}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\0" * 100,
        '{"layout": {"instances": 0}}',
        json.dumps({**FIELDS, "layout": {**FIELDS["layout"], "instances": 1.5}}),  # type: ignore[dict-item]
        json.dumps({**FIELDS, "rows_per_second": -1}),
        json.dumps({**FIELDS, "more": 1}),
    ],
)
def test_a_broken_layout_file_is_reported_and_ignored(
    models: Path, options: ServingOptions, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = write_tuned(models, options)
    path.write_text(content)
    assert load(models, options).tuned is None
    assert f"{path} is ignored" in caplog.text
    assert path.read_text() == content


def test_a_layout_that_was_written_is_read_again(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "new" / "layouts", "key", TUNED)
    assert read_layout(path.parent, "key") == TUNED
    assert read_layout(path.parent, "another") is None
    assert list(path.parent.iterdir()) == [path]
