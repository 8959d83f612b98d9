"""Which TensorRT engine computes a bundle: the fastest that passed, from the cache or from the bundle."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.bundle.engine_file import EngineFile
from serving.bundle.manifest import Artifact, Bundle, BundleError, Manifest
from serving.engine.base import EngineLayout
from serving.engine.selection import choose_engine
from serving.engine.tensorrt_cache import PLAN, SIDECAR
from serving.engine.tensorrt_rtx import runs_on
from tests.support.fake_gpu import CROP, NAME, RTX_RELEASE, FakeGpu
from tests.support.fake_gpu_bundle import graph, write_fake_bundle

pytestmark = pytest.mark.usefixtures("engines")
CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle whose graph is there as fp32, fp16 and INT8 for TensorRT, under different hashes."""
    bundle = write_fake_bundle(tmp_path)
    (fp32,) = bundle.manifest.artifacts
    artifacts = [fp32]
    for precision, runtime in (("fp16", "onnxruntime"), ("int8", "tensorrt")):
        content = graph(precision)
        file = f"model.{precision}.onnx"
        (bundle.folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        artifacts.append(
            Artifact(file=file, precision=precision, runtime=runtime, sha256=digest, bytes=len(content))  # type: ignore[arg-type]
        )
    return Bundle(bundle.folder, replace(bundle.manifest, artifacts=tuple(artifacts)))


def with_engine(bundle: Bundle, plan: bytes, **changes: object) -> Bundle:
    """The bundle with an engine of TensorRT for RTX, built from its fp32 file."""
    (bundle.folder / "model.fp32.rtx.engine").write_bytes(plan)
    engine = EngineFile(
        file="model.fp32.rtx.engine",
        precision="fp32",
        onnx_sha256=bundle.artifact("fp32").sha256,
        sha256=hashlib.sha256(plan).hexdigest(),
        bytes=len(plan),
        release=RTX_RELEASE,
        compute_capabilities=CAPABILITIES,
        min_batch=1,
        opt_batch=2,
        max_batch=4,
    )
    return Bundle(bundle.folder, replace(bundle.manifest, engines=(replace(engine, **changes),)))  # type: ignore[arg-type]


def test_the_fastest_measured_engine_is_taken_whatever_its_precision(
    bundle: Bundle, engines: Path, fake_gpu: FakeGpu
) -> None:
    for precision, rate in (("int8", 900.0), ("fp16", 1500.0)):
        digest = bundle.artifact(precision, "tensorrt").sha256  # type: ignore[arg-type]
        fake_gpu.write_engine(engines, digest, precision, max_batch=4, images_per_second={"1": 10.0, "4": rate})  # type: ignore[arg-type]
    choice = choose_engine(bundle, "auto", None)
    assert (choice.runtime, choice.precision) == ("tensorrt", "fp16")
    assert "fp16 is the fastest engine measured here (1,500 images/s)" in choice.reason
    assert choose_engine(bundle, "tensorrt", "int8").precision == "int8"


def test_fp16_comes_first_where_no_engine_was_measured(bundle: Bundle, engines: Path, fake_gpu: FakeGpu) -> None:
    for precision in ("int8", "fp16", "fp32"):
        digest = bundle.artifact(precision, "tensorrt").sha256  # type: ignore[arg-type]
        fake_gpu.write_engine(engines, digest, precision, max_batch=4)  # type: ignore[arg-type]
    choice = choose_engine(bundle, "auto", None)
    assert choice.precision == "fp16"
    assert "fp16 is the first engine found of fp16, int8, fp32; none was measured here" in choice.reason


def test_on_hopper_tensorrt_for_rtx_is_an_error_that_names_tensorrt(bundle: Bundle, fake_rtx_gpu: FakeGpu) -> None:
    fake_rtx_gpu.compute_capability = "9.0"
    with pytest.raises(BundleError, match="does not run on .* 9.0; use --engine tensorrt$"):
        choose_engine(with_engine(bundle, fake_rtx_gpu.plan(4)), "tensorrt-rtx", None)


def test_a_damaged_int8_engine_leaves_a_good_fp16_engine_in_use(
    bundle: Bundle, engines: Path, fake_gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = fake_gpu.write_engine(
        engines, bundle.artifact("int8", "tensorrt").sha256, "int8", max_batch=4, images_per_second={"1": 2e6}
    )
    fake_gpu.write_engine(engines, bundle.artifact("fp16").sha256, "fp16", max_batch=4, images_per_second={"1": 1e6})
    (folder / PLAN).write_bytes(fake_gpu.plan(5))
    assert choose_engine(bundle, "auto", None).precision == "fp16"
    assert "it was changed" in caplog.text
    with pytest.raises(BundleError, match="it was changed"):
        choose_engine(bundle, "tensorrt", "int8")


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        {"images_per_second": None},
        {"images_per_second": {"1": "x"}},
        {"plan_bytes": "x"},
        {"precision": "bf16"},
        {"flavor": "other"},
        {"max_batch": None},
        {"compute_capabilities": None},
    ],
)
def test_a_damaged_description_of_an_engine_is_left_out_with_a_warning(
    bundle: Bundle,
    engines: Path,
    fake_gpu: FakeGpu,
    caplog: pytest.LogCaptureFixture,
    damage: str | dict[str, object],
) -> None:
    folder = fake_gpu.write_engine(engines, bundle.artifact("fp16").sha256, "fp16", max_batch=4)
    if isinstance(damage, dict):
        damage = json.dumps(json.loads((folder / SIDECAR).read_text()) | damage)
    (folder / SIDECAR).write_text(damage)
    choice = choose_engine(bundle, "auto", None)
    assert choice.runtime == "onnxruntime-cpu"
    assert f"{folder / SIDECAR} cannot be read" in choice.reason
    assert "an engine is left out" in caplog.text


def test_an_int8_engine_whose_accuracy_was_not_checked_is_used_only_if_asked_for(
    bundle: Bundle, engines: Path, fake_gpu: FakeGpu
) -> None:
    digest = bundle.artifact("int8", "tensorrt").sha256
    fake_gpu.write_engine(engines, digest, "int8", max_batch=4, images_per_second={"1": 1e6}, check="unchecked")
    assert choose_engine(bundle, "auto", None).runtime == "onnxruntime-cpu"
    with pytest.raises(BundleError, match="was not checked: build it with --images"):
        choose_engine(bundle, "tensorrt", None)
    assert choose_engine(bundle, "tensorrt", "int8").precision == "int8"


def test_an_engine_of_the_bundle_runs_and_its_kernels_are_kept(
    bundle: Bundle, tmp_path: Path, fake_rtx_gpu: FakeGpu
) -> None:
    bundle = with_engine(bundle, fake_rtx_gpu.plan(4))
    for asked in ("auto", "tensorrt-rtx"):
        choice = choose_engine(bundle, asked, None, tmp_path / "kernels")  # type: ignore[arg-type]
        assert (choice.runtime, choice.precision, choice.max_batch_size) == ("tensorrt-rtx", "fp32", 4)
    engines = choice.make(EngineLayout(instances=2, threads=1, max_batch_size=4))
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, CROP, CROP, 3), np.uint8)
    for engine in engines:
        np.testing.assert_array_equal(engine.run(images_NHWC), fake_rtx_gpu.answers(images_NHWC))
        engine.close()
    assert fake_rtx_gpu.allocated == {}
    (kernels,) = (tmp_path / "kernels").iterdir()
    assert kernels.read_bytes() == fake_rtx_gpu.kernels
    fake_rtx_gpu.log.clear()
    choose_engine(bundle, "auto", None, tmp_path / "kernels")
    assert fake_rtx_gpu.log == [f"kernels of {len(fake_rtx_gpu.kernels)} bytes"]


def test_kernels_of_another_driver_are_compiled_again(
    bundle: Bundle, tmp_path: Path, fake_rtx_gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = with_engine(bundle, fake_rtx_gpu.plan(4))
    layout = EngineLayout(instances=1, threads=1, max_batch_size=4)
    for engine in choose_engine(bundle, "auto", None, tmp_path / "kernels").make(layout):
        engine.close()
    fake_rtx_gpu.stale_kernels, fake_rtx_gpu.kernels = True, b"newer kernels"
    for engine in choose_engine(bundle, "auto", None, tmp_path / "kernels").make(layout):
        engine.close()
    assert "kernels are compiled again" in caplog.text
    assert [path.read_bytes() for path in (tmp_path / "kernels").iterdir()] == [b"newer kernels"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"compute_capabilities": ("8.0", "8.6")}, f"compute capability 8.0, 8.6, and {NAME} has 8.9"),
        ({"release": "1.6.0.1"}, "built for TensorRT for RTX 1.6.0.1, and this host has 1.7.1.116"),
        ({"sha256": "0" * 64}, "it was changed after the export"),
        ({"bytes": 3}, "copy the bundle again"),
    ],
)
def test_an_engine_of_the_bundle_that_does_not_fit_is_an_error_that_says_why(
    bundle: Bundle, fake_rtx_gpu: FakeGpu, changes: dict[str, object], complaint: str
) -> None:
    bundle = with_engine(bundle, fake_rtx_gpu.plan(4), **changes)
    with pytest.raises(BundleError, match=f"--engine tensorrt-rtx .*{complaint}.*--flavor rtx"):
        choose_engine(bundle, "tensorrt-rtx", None)
    choice = choose_engine(bundle, "auto", None)
    assert choice.runtime == "onnxruntime-cpu"
    assert complaint in choice.reason


def test_a_first_run_that_differs_from_the_onnx_file_is_an_error(bundle: Bundle, fake_rtx_gpu: FakeGpu) -> None:
    fake_rtx_gpu.bias = 2.0
    with pytest.raises(BundleError, match="first run differs from model.fp32.onnx in ONNX Runtime by"):
        choose_engine(with_engine(bundle, fake_rtx_gpu.plan(4)), "tensorrt-rtx", None)
    assert fake_rtx_gpu.allocated == {}


def test_an_engine_of_this_host_comes_before_one_of_the_bundle(
    bundle: Bundle, engines: Path, fake_rtx_gpu: FakeGpu
) -> None:
    fake_rtx_gpu.write_engine(
        *(engines, bundle.artifact("fp16").sha256, "fp16"),
        max_batch=8,
        flavor="rtx",
        tensorrt=RTX_RELEASE,
        compute_capabilities=("8.9",),
        images_per_second={"8": 3000.0},
    )
    choice = choose_engine(with_engine(bundle, fake_rtx_gpu.plan(4)), "auto", None)
    assert (choice.runtime, choice.precision, choice.max_batch_size) == ("tensorrt-rtx", "fp16", 8)


def test_engines_run_on_the_gpus_that_they_list_and_on_newer_ones() -> None:
    assert runs_on(CAPABILITIES, "8.6")
    assert runs_on(CAPABILITIES, "12.1")
    assert not runs_on(CAPABILITIES, "9.0"), "Hopper"
    assert not runs_on(CAPABILITIES, "7.5"), "Turing"
    assert not runs_on(("8.6",), "12.0")


def test_the_manifest_keeps_engines_and_earlier_manifests_have_none(bundle: Bundle, fake_gpu: FakeGpu) -> None:
    with_one = with_engine(bundle, fake_gpu.plan(4)).manifest
    assert "engines" not in json.loads(bundle.manifest.to_json())
    fields = json.loads(with_one.to_json())
    fields["preprocess"]["crop"] = 16  # the fake network is smaller than a preprocessing may be
    assert Manifest.from_json(json.dumps(fields)).engines == with_one.engines
    del fields["engines"][0]["compute_capabilities"]
    with pytest.raises(BundleError, match="compute_capabilities"):
        Manifest.from_json(json.dumps(fields))
