"""Which runtime and precision compute a bundle: the one that was asked for, or an error; `auto` reports its choice."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import serving.engine.cuda
from serving.bundle.manifest import Bundle, BundleError
from serving.engine.base import EngineLayout
from serving.engine.onnx_package import check_complete, why_no_cuda
from serving.engine.selection import choose_engine
from serving.engine.tensorrt_cache import PLAN
from serving.models.layout import LayoutOptions
from serving.models.loader import load_model
from tests.support.bundles import OPTIONS
from tests.support.fake_gpu import CROP, NAME, CudaCode, FakeGpu
from tests.support.fake_gpu_bundle import write_fake_bundle

pytestmark = pytest.mark.usefixtures("engines")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_fake_bundle(tmp_path)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.engine.cuda, "DEVICE_FILES", ())
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)


def test_without_a_gpu_auto_takes_the_cpu_and_says_so(bundle: Bundle, no_gpu: None) -> None:
    choice = choose_engine(bundle, "auto", None)
    assert (choice.runtime, choice.precision, choice.on_gpu) == ("onnxruntime-cpu", "fp32", False)
    assert "no NVIDIA GPU" in choice.reason
    assert choose_engine(bundle, "cpu", "fp32").reason == "--engine cpu; --precision fp32"


@pytest.mark.parametrize("asked", ["cuda", "tensorrt"])
def test_without_cuda_an_engine_that_was_asked_for_fails_with_the_package_to_install(
    bundle: Bundle, no_gpu: None, asked: str
) -> None:
    with pytest.raises(BundleError, match=rf"--engine {asked} .*pawserve\[gpu\]"):
        choose_engine(bundle, asked, None)


def test_an_engine_that_was_built_here_is_taken_and_answers(
    bundle: Bundle, engines: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = bundle.manifest.artifacts[0].sha256
    fake_gpu.write_engine(engines, digest, "fp32", max_batch=2)
    fake_gpu.write_engine(engines, digest, "fp32", max_batch=8)
    for asked in ("auto", "tensorrt"):
        choice = choose_engine(bundle, asked, None)
        assert (choice.runtime, choice.variant, choice.max_batch_size) == ("tensorrt", "fp32", 8)
    assert NAME in choose_engine(bundle, "auto", None).reason
    options = replace(OPTIONS, engine="tensorrt", layout=LayoutOptions(instances=2, threads=1, max_batch_size=4))
    model = load_model(bundle, options)
    assert (model.runtime, model.engine) == ("tensorrt", "fp32, tensorrt, 2 instances x 1 thread")
    images = np.random.default_rng(0).integers(0, 256, (4, CROP, CROP, 3), np.uint8)
    for engine in model.engines:
        np.testing.assert_array_equal(engine.run(images), fake_gpu.answers(images))
    model.close()
    assert fake_gpu.allocated == {}


def nothing(gpu: FakeGpu, folder: Path) -> None:
    pass


def change_plan(gpu: FakeGpu, folder: Path) -> None:
    (folder / PLAN).write_bytes(gpu.plan(9))


def other_gpu(gpu: FakeGpu, folder: Path) -> None:
    sidecar = folder / "engine.json"
    sidecar.write_text(sidecar.read_text().replace(NAME, "Tesla T4"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda gpu, folder: setattr(gpu, "count_error", CudaCode.cudaErrorInsufficientDriver), "driver 580"),
        (lambda gpu, folder: setattr(gpu, "devices", 0), "no NVIDIA GPU"),
        (change_plan, "it was changed"),
        (other_gpu, r"built for GPU Tesla T4 .*build one with python -m export engine"),
    ],
)
def test_a_tensorrt_engine_that_cannot_be_used_fails_and_auto_reports_why_it_took_the_cpu(
    bundle: Bundle, engines: Path, fake_gpu: FakeGpu, change: Callable[[FakeGpu, Path], None], complaint: str
) -> None:
    change(fake_gpu, fake_gpu.write_engine(engines, bundle.manifest.artifacts[0].sha256, "fp32", max_batch=4))
    with pytest.raises(BundleError, match=f"--engine tensorrt .*{complaint}"):
        choose_engine(bundle, "tensorrt", None)
    choice = choose_engine(bundle, "auto", None)
    assert choice.runtime == "onnxruntime-cpu"
    assert "GPU" in choice.reason


def test_too_little_memory_on_the_gpu_is_an_error(bundle: Bundle, engines: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.write_engine(engines, bundle.manifest.artifacts[0].sha256, "fp32", max_batch=4)
    fake_gpu.context_bytes = 4 << 30
    with pytest.raises(BundleError, match="needs 4,096 MiB"):
        load_model(bundle, replace(OPTIONS, engine="tensorrt"))
    assert fake_gpu.allocated == {}


def test_two_packages_of_onnx_runtime_are_an_error_with_the_commands_that_repair_them() -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    assert str(why_no_cuda(both.get)).startswith(
        "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed, and overwrite each other: pip uninstall -y "
        "onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )
    check_complete()
    assert str(why_no_cuda({}.get)).startswith("neither onnxruntime nor onnxruntime-gpu is installed: pip uninstall")
    assert str(why_no_cuda({"onnxruntime-gpu": "1.31.1"}.get)).startswith("onnxruntime-gpu 1.31.1 has no CUDA: ")


def test_cuda_that_onnx_runtime_lacks_or_cannot_load_is_an_error(
    bundle: Bundle, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match="onnxruntime .* has no CUDA: pip uninstall -y onnxruntime onnxruntime-gpu"):
        choose_engine(bundle, "cuda", None)
    with pytest.raises(BundleError, match="no INT8 on a GPU"):
        choose_engine(bundle, "cuda", "int8")
    # a build with CUDA whose libraries do not load: ONNX Runtime then takes the CPU, and says so only when asked
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(BundleError, match="--engine cuda"):
        choose_engine(bundle, "cuda", "fp32").make(EngineLayout(instances=1, threads=1, max_batch_size=1))
