"""`export engine` over a fake GPU: every failure is reported, nothing half-built is kept.

The fake keeps the real API's return conventions; that it is the real API is what test_export_tensorrt_contract.py
holds. Nothing here shows that an engine computes what it should: tests/gpu does, on a GPU.
"""

import json
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.checks.checks import CheckError
from export.engine import build_and_check, default_precision
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Artifact, Bundle
from serving.engine.cuda import CudaError, Gpu
from serving.engine.tensorrt_cache import PLAN, SIDECAR
from serving.engine.tensorrt_library import EngineBuildError
from serving.engine.tensorrt_rtx import LIBRARIES, default_flavor
from tests.support.fake_gpu import NAME, RELEASE, CudaCode, FakeGpu, sha256
from tests.support.fake_gpu_bundle import write_fake_bundle
from tests.support.waiting import eventually

OPTIONS = PlanOptions(min_batch=1, opt_batch=2, max_batch=4)
GPU = Gpu(NAME, "9.0")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_fake_bundle(tmp_path)


@pytest.fixture(params=["fake_gpu", "fake_rtx_gpu"])
def any_gpu(request: pytest.FixtureRequest) -> FakeGpu:
    """A fake GPU with TensorRT, and one with TensorRT for RTX."""
    gpu: FakeGpu = request.getfixturevalue(request.param)
    return gpu


def build(bundle: Bundle, engines: Path, options: PlanOptions = OPTIONS) -> dict[str, Any]:
    """With the library that is installed."""
    return build_and_check(bundle, "fp32", options, engines, None, LIBRARIES[default_flavor()])


def folders(engines: Path) -> list[Path]:
    return [path for path in engines.iterdir() if path.is_dir()] if engines.exists() else []


def test_an_engine_is_built_checked_measured_and_then_reused(bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu) -> None:
    engines = tmp_path / "engines"
    first = build(bundle, engines)
    assert first["parity"]["agreement"] == 1.0
    assert [rate["batch"] for rate in first["rates"]] == [1, 2, 4]
    (folder,) = folders(engines)
    sidecar = json.loads((folder / SIDECAR).read_text())
    assert sidecar["plan_sha256"] == sha256((folder / PLAN).read_bytes())
    assert sidecar["onnx_sha256"] == bundle.manifest.artifacts[0].sha256
    assert (sidecar["gpu"], sidecar["compute_capability"], sidecar["tensorrt"]) == (NAME, "9.0", RELEASE)
    assert "workspace 2048 MiB" in fake_gpu.log
    assert "without TF32" in fake_gpu.log
    assert sidecar["check"] == "passed"
    assert sidecar["images_per_second"].keys() == {"1", "2", "4"}
    assert build(bundle, engines)["engine"]["plan_sha256"] == first["engine"]["plan_sha256"]
    assert fake_gpu.built == 1
    assert fake_gpu.allocated == {}


@pytest.mark.parametrize("damage", ["plan", "sidecar", "other sidecar", "rejected"])
def test_a_damaged_engine_of_the_cache_is_built_again(
    bundle: Bundle, tmp_path: Path, any_gpu: FakeGpu, damage: str
) -> None:
    engines = tmp_path / "engines"
    build(bundle, engines)
    (folder,) = folders(engines)
    good = (folder / PLAN).read_bytes()
    if damage == "plan":
        (folder / PLAN).write_bytes(good[:-1])
    elif damage == "sidecar":
        (folder / SIDECAR).write_text("{")
    elif damage == "other sidecar":
        (folder / SIDECAR).write_text((folder / SIDECAR).read_text().replace('"fp32"', '"fp16"'))
    else:  # it is what its sidecar describes, and TensorRT does not take it
        (folder / PLAN).write_bytes(b"garbage")
        fields = json.loads((folder / SIDECAR).read_text()) | {"plan_sha256": sha256(b"garbage"), "plan_bytes": 7}
        (folder / SIDECAR).write_text(json.dumps(fields))
    build(bundle, engines)
    assert any_gpu.built == 2
    assert folders(engines) == [folder]
    assert (folder / PLAN).read_bytes() == good
    build(bundle, engines)
    assert any_gpu.built == 2


def test_each_option_of_a_build_has_an_engine_of_its_own(bundle: Bundle, tmp_path: Path, any_gpu: FakeGpu) -> None:
    for options in (OPTIONS, replace(OPTIONS, workspace_mib=512), replace(OPTIONS, optimization_level=5)):
        build(bundle, tmp_path / "engines", options)
    assert any_gpu.built == len(folders(tmp_path / "engines")) == 3


def test_int8_on_noise_is_measured_but_not_checked(
    bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu, capsys: pytest.CaptureFixture[str]
) -> None:
    (fp32,) = bundle.manifest.artifacts
    int8 = replace(fp32, precision="int8", runtime="tensorrt")
    bundle = Bundle(bundle.folder, replace(bundle.manifest, artifacts=(int8,)))
    fake_gpu.bias = 3.0
    result = build_and_check(bundle, "int8", OPTIONS, tmp_path / "engines", None)
    assert result["engine"]["check"] == "unchecked"
    assert "accuracy of INT8 is not checked without --images" in capsys.readouterr().err
    fake_gpu.bias = float("nan")
    with pytest.raises(CheckError, match="not finite"):
        build_and_check(bundle, "int8", OPTIONS, tmp_path / "engines", None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two classes."""
    for index in range(8):
        path = tmp_path / "images" / ("cats", "dogs")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 30 * index, np.uint8)).save(path)
    return tmp_path / "images"


def test_int8_that_passed_on_images_still_has_passed_when_it_is_run_on_noise(
    bundle: Bundle, tmp_path: Path, images: Path, fake_gpu: FakeGpu
) -> None:
    (fp32,) = bundle.manifest.artifacts
    int8 = replace(fp32, precision="int8", runtime="tensorrt")
    bundle = Bundle(bundle.folder, replace(bundle.manifest, artifacts=(int8,)))
    for folder in (images, None):
        result = build_and_check(bundle, "int8", OPTIONS, tmp_path / "engines", folder)
        assert result["engine"]["check"] == "passed"


def test_an_engine_that_passed_on_noise_and_fails_on_images_is_removed(
    bundle: Bundle, tmp_path: Path, images: Path, fake_gpu: FakeGpu
) -> None:
    build(bundle, tmp_path / "engines")
    fake_gpu.bias = 4.0
    with pytest.raises(CheckError):
        build_and_check(bundle, "fp32", OPTIONS, tmp_path / "engines", images)
    assert folders(tmp_path / "engines") == []


def test_an_engine_that_passed_stays_so_where_it_cannot_run(
    bundle: Bundle, tmp_path: Path, fake_rtx_gpu: FakeGpu
) -> None:
    first = build(bundle, tmp_path / "engines")
    assert first["engine"]["check"] == "passed"
    fake_rtx_gpu.count_error = CudaCode.cudaErrorInsufficientDriver
    again = build(bundle, tmp_path / "engines")
    assert (again["engine"], again["parity"]) == (first["engine"], None)


def test_the_default_precision_is_the_first_that_the_bundle_has_for_tensorrt(bundle: Bundle) -> None:
    (fp32,) = bundle.manifest.artifacts
    others: dict[str, Artifact] = {
        "fp32": replace(fp32, precision="int8"),  # for ONNX Runtime
        "int8": replace(fp32, precision="int8", runtime="tensorrt"),
        "fp16": replace(fp32, precision="fp16"),
    }
    for expected, other in others.items():
        bundle = Bundle(bundle.folder, replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, other)))
        assert default_precision(bundle) == expected


def test_images_that_are_not_used_are_named(
    bundle: Bundle, tmp_path: Path, fake_rtx_gpu: FakeGpu, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_rtx_gpu.count_error = CudaCode.cudaErrorInsufficientDriver
    build_and_check(bundle, "fp32", OPTIONS, tmp_path / "engines", tmp_path / "nowhere", LIBRARIES["rtx"])
    assert f"the images of {tmp_path / 'nowhere'} are not used" in capsys.readouterr().err


def test_timings_of_an_earlier_build_are_offered_and_stale_ones_dropped(
    bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu
) -> None:
    engines = tmp_path / "engines"
    build(bundle, engines)
    fake_gpu.stale_timings = True
    build_and_check(bundle, "fp32", PlanOptions(max_batch=32), engines, None)
    assert [line for line in fake_gpu.log if "timings" in line] == [
        "timings of 0 bytes",
        f"timings of {len(b'timings')} bytes",
        "timings of 0 bytes",
    ]


def change_output(gpu: FakeGpu) -> None:
    gpu.bias = 3.0


def break_parser(gpu: FakeGpu) -> None:
    gpu.parse_errors = (("/body/fft", "DFT", "no importer for it"), ("/x", "Y", "z"))


@pytest.mark.parametrize(
    ("change", "kind", "complaint"),
    [
        (break_parser, EngineBuildError, r"'/body/fft' \(DFT\): no importer for it; node '/x'"),
        (lambda gpu: setattr(gpu, "build_fails", True), EngineBuildError, "no tactic fits the workspace.*1,024 MiB"),
        (lambda gpu: setattr(gpu, "builder_fails", True), EngineBuildError, "factory function returned nullptr"),
        (lambda gpu: setattr(gpu, "profile_index", -1), EngineBuildError, "rejects the optimization profile"),
        (lambda gpu: setattr(gpu, "no_context", True), EngineBuildError, "made no execution context"),
        (lambda gpu: setattr(gpu, "context_bytes", 4 << 30), EngineBuildError, "needs 4,096 MiB .* 1,024 MiB are free"),
        (lambda gpu: setattr(gpu, "refuse_execution", True), EngineBuildError, "could not run a batch"),
        (change_output, CheckError, "differs from ONNX Runtime"),
    ],
)
def test_every_failure_is_reported_and_leaves_no_engine(
    bundle: Bundle, tmp_path: Path, any_gpu: FakeGpu, change: object, kind: type[Exception], complaint: str
) -> None:
    change(any_gpu)
    before = {path: path.read_bytes() for path in bundle.folder.iterdir()}
    with pytest.raises(kind, match=complaint):
        build(bundle, tmp_path / "engines")
    assert folders(tmp_path / "engines") == []
    assert {path: path.read_bytes() for path in bundle.folder.iterdir()} == before
    assert any_gpu.allocated == {}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda gpu: setattr(gpu, "devices", 0), "no NVIDIA GPU"),
        (lambda gpu: setattr(gpu, "count_error", CudaCode.cudaErrorNoDevice), "no NVIDIA GPU"),
        (lambda gpu: setattr(gpu, "count_error", CudaCode.cudaErrorInsufficientDriver), "driver 580"),
        (lambda gpu: setattr(gpu, "count_error", CudaCode.cudaErrorIllegalAddress), "IllegalAddress"),
    ],
)
def test_tensorrt_needs_a_gpu_that_works(
    bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu, change: object, complaint: str
) -> None:
    change(fake_gpu)
    with pytest.raises(CudaError, match=complaint):
        build(bundle, tmp_path / "engines")
    assert folders(tmp_path / "engines") == []


def test_ctrl_c_stops_the_build_and_leaves_no_engine(bundle: Bundle, tmp_path: Path, any_gpu: FakeGpu) -> None:
    steps = []

    def press() -> None:
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        steps.append(None)
        time.sleep(0.05)

    any_gpu.during_build, any_gpu.steps = press, 200
    with pytest.raises(KeyboardInterrupt):
        build(bundle, tmp_path / "engines")
    assert len(steps) < 200
    assert "tensorrt-build" not in "".join(thread.name for thread in threading.enumerate())
    assert folders(tmp_path / "engines") == []


def test_ctrl_c_while_the_build_is_being_started_stops_it(
    bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[None] = []
    submit = ThreadPoolExecutor.submit

    def submit_and_press(*arguments: Any) -> Future[Any]:
        future = submit(*arguments)
        assert eventually(lambda: steps)
        signal.raise_signal(signal.SIGINT)
        return future

    def step() -> None:
        steps.append(None)
        time.sleep(0.05)

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", submit_and_press)
    fake_gpu.during_build, fake_gpu.steps = step, 200
    with pytest.raises(KeyboardInterrupt):
        build(bundle, tmp_path / "engines")
    assert len(steps) < 200
    assert folders(tmp_path / "engines") == []


def test_without_tensorrt_the_error_names_the_package_and_its_index(
    bundle: Bundle, tmp_path: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineBuildError, match=r"pawserve\[gpu\].*install guide"):
        build_and_check(bundle, "fp32", OPTIONS, tmp_path / "engines", None)


def test_a_changed_onnx_file_is_not_built(bundle: Bundle, tmp_path: Path, any_gpu: FakeGpu) -> None:
    path = bundle.folder / "model.fp32.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="changed after the export"):
        build(bundle, tmp_path / "engines")
    assert any_gpu.built == 0


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"min_batch": 0}, "1 <= min"),
        ({"opt_batch": 65}, "min <= opt <= max"),
        ({"workspace_mib": 1}, "workspace_mib is 1"),
        ({"optimization_level": 6}, "TensorRT has 0 to 5"),
    ],
)
def test_options_out_of_range_are_rejected(wrong: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PlanOptions(**wrong)
