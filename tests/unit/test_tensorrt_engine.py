"""The serving engine of TensorRT over a fake GPU, which keeps the real API's return conventions.

Nothing here shows that an engine computes what it should: tests/gpu does, on a GPU.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from serving.engine.base import DeviceLost, EngineLayout
from serving.engine.cuda import Gpu, find_gpu
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine
from serving.engine.tensorrt_cache import PLAN, SIDECAR, read_plan, read_sidecar
from serving.engine.tensorrt_library import EngineBuildError
from tests.support.fake_gpu import CROP, NAME, RELEASE, FakeGpu

GPU = Gpu(NAME, "9.0")


def test_a_plan_of_another_gpu_or_release_or_a_changed_one_is_rejected(tmp_path: Path, fake_gpu: FakeGpu) -> None:
    folder = fake_gpu.write_engine(tmp_path, "0" * 64, "fp16", max_batch=4)
    sidecar = read_sidecar(folder)
    assert sidecar.misfit(GPU, RELEASE) is None
    assert read_plan(folder, sidecar) == fake_gpu.plan(4)
    misfit = sidecar.misfit(Gpu("Tesla T4", "7.5"), RELEASE) or ""
    assert re.search("built for GPU NVIDIA Fake GPU .*this host has Tesla T4", misfit)
    assert sidecar.misfit(GPU, "11.5.0") == f"was built for TensorRT {RELEASE}, and this host has 11.5.0"
    (folder / PLAN).write_bytes(fake_gpu.plan(5))
    with pytest.raises(EngineBuildError, match="it was changed"):
        read_plan(folder, sidecar)
    (folder / PLAN).write_bytes(b"short")
    with pytest.raises(EngineBuildError, match="5 bytes"):
        read_plan(folder, sidecar)
    (folder / SIDECAR).write_text("{}")
    with pytest.raises(EngineBuildError, match="cannot be read"):
        read_sidecar(folder)


def test_a_plan_that_tensorrt_rejects_is_reported_with_the_reason(fake_gpu: FakeGpu) -> None:
    with pytest.raises(EngineBuildError, match="serialization assertion failed"):
        LoadedPlan(b"garbage")


def test_an_engine_computes_rows_in_order_and_rejects_what_is_outside_its_profile(fake_gpu: FakeGpu) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, CROP, CROP, 3), np.uint8)
    images[1] //= 4
    with TensorRTEngine(LoadedPlan(fake_gpu.plan(4))) as engine:
        assert engine.max_batch_size == 4
        answers = engine.run(images)
        np.testing.assert_array_equal(answers, fake_gpu.answers(images))
        np.testing.assert_array_equal(engine.run(images[1:2]), fake_gpu.answers(images[1:2]))
        np.testing.assert_array_equal(answers, fake_gpu.answers(images))  # not overwritten by the next batch
        with pytest.raises(EngineBuildError, match=r"\(5, 8, 8, 3\).*1 to 4"):
            engine.run(np.zeros((5, CROP, CROP, 3), np.uint8))
        with pytest.raises(EngineBuildError, match=r"takes 1 to 4 of \(8, 8, 3\)"):
            engine.run(np.zeros((1, 9, CROP, 3), np.uint8))
        with pytest.raises(EngineBuildError, match="takes 1 to 4"):
            engine.run(np.zeros((0, CROP, CROP, 3), np.uint8))
    assert fake_gpu.allocated == {}


@pytest.mark.parametrize("capture_fails", [False, True])
def test_batches_of_all_sizes_are_padded_to_a_captured_one_or_run_without(
    fake_gpu: FakeGpu, capture_fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fake_gpu.capture_fails = capture_fails
    images = np.random.default_rng(1).integers(0, 256, (6, CROP, CROP, 3), np.uint8)
    with TensorRTEngine(LoadedPlan(fake_gpu.plan(6))) as engine:
        for count in (6, 1, 5, 3, 2, 4):
            np.testing.assert_array_equal(engine.run(images[:count]), fake_gpu.answers(images[:count]))
    assert (fake_gpu.captured, fake_gpu.launched) == ((0, 0) if capture_fails else (4, 6))  # of 1, 2, 4 and 6
    assert ("without a CUDA graph" in caplog.text) == capture_fails
    assert fake_gpu.allocated == {}


def test_the_instances_of_a_plan_take_its_batches_and_give_everything_back(fake_gpu: FakeGpu) -> None:
    plan = LoadedPlan(fake_gpu.plan(8))
    engines = plan.make_engines(EngineLayout(instances=2, threads=1, max_batch_size=4))
    assert [engine.max_batch_size for engine in engines] == [4, 4]
    images = np.random.default_rng(2).integers(0, 256, (4, CROP, CROP, 3), np.uint8)
    for engine in engines:
        np.testing.assert_array_equal(engine.run(images), fake_gpu.answers(images))
    for engine in engines:
        engine.close()
        engine.close()
    assert fake_gpu.allocated == {}
    fake_gpu.no_context = True
    with pytest.raises(EngineBuildError):
        plan.make_engines(EngineLayout(instances=2, threads=1, max_batch_size=4))
    assert fake_gpu.allocated == {}


def test_a_gpu_that_fails_every_call_is_lost_and_one_that_fails_a_batch_is_not(fake_gpu: FakeGpu) -> None:
    images = np.zeros((1, CROP, CROP, 3), np.uint8)
    fake_gpu.capture_fails = True  # so that TensorRT is asked to run each batch
    with TensorRTEngine(LoadedPlan(fake_gpu.plan(4))) as engine:
        fake_gpu.refuse_execution = True
        with pytest.raises(EngineBuildError, match="could not run a batch of 1"):
            engine.run(images)
        fake_gpu.refuse_execution = False
        fake_gpu.lost = True
        with pytest.raises(DeviceLost, match=r"fails all further calls of this process \(.*cudaErrorIllegalAddress"):
            engine.run(images)


def test_buffers_that_do_not_fit_are_reported_and_freed(fake_gpu: FakeGpu) -> None:
    fake_gpu.memory, fake_gpu.context_bytes = 700, 100
    with pytest.raises(EngineBuildError, match="cudaMalloc|buffers cannot be allocated"):
        TensorRTEngine(LoadedPlan(fake_gpu.plan(4)))
    assert fake_gpu.allocated == {}


def test_the_gpu_of_the_host_is_found(fake_gpu: FakeGpu) -> None:
    assert find_gpu() == GPU
