"""`export bundle --engines rtx`: engines that are built into the bundle, without a GPU."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from serving.bundle.manifest import open_bundle
from tests.support.commands import run_here

pytest.importorskip("tensorrt_rtx_bindings")
LOOSE = ("--min-agreement", "0.6", "--max-accuracy-loss", "0.4", "--max-diff-fp16", "0.05")
"""The network has random weights, so its predictions are near one another: these tests are not about accuracy."""


def export(fitted: Path, models: Path, *options: object) -> tuple[int, str]:
    command = ("export", "bundle", "--run", fitted, "--models", models, "--name", "pets", "--calibration-images", 16)
    finished = run_here(*command, *LOOSE, *options)
    return finished.returncode, finished.stderr


@pytest.mark.slow
def test_a_bundle_has_the_engines_that_were_asked_for(fitted: Path, tmp_path: Path) -> None:
    code, said = export(
        *(fitted, tmp_path, "--precisions", "fp32", "fp16", "int8-trt", "--engines", "rtx"),
        *("--engine-precisions", "int8", "fp16", "--compute-capability", "8.6", "8.9", "--max-batch", 16),
    )
    assert code == 0, said
    bundle = open_bundle(tmp_path / "pets" / "1")
    assert [engine.file for engine in bundle.manifest.engines] == ["model.int8.rtx.engine", "model.fp16.rtx.engine"]
    for engine in bundle.manifest.engines:
        content = bundle.read(engine)
        assert hashlib.sha256(content).hexdigest() == engine.sha256
        assert engine.onnx_sha256 == bundle.artifact(engine.precision, "tensorrt").sha256
        assert (engine.compute_capabilities, engine.max_batch) == (("8.6", "8.9"), 16)
        assert engine.build["seconds"] > 0
        assert engine.build["layers"]["weighted"]
        assert f"{engine.precision} engine, {len(content) / 1e6:.1f} MB, built in" in said
    page = (bundle.folder / "bundle.html").read_text(encoding="utf-8")
    assert "model.int8.rtx.engine: TensorRT for RTX 1.7.1.116 for compute capability 8.6, 8.9" in page
    shown = run_here("export", "inspect", bundle.folder)
    assert "model.fp16.rtx.engine: TensorRT for RTX" in shown.stdout
    facts = json.loads(run_here("export", "inspect", bundle.folder, "--json").stdout)
    assert [engine["precision"] for engine in facts["bundled_engines"]] == ["int8", "fp16"]
    path = bundle.folder / "model.int8.rtx.engine"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    damaged = run_here("export", "inspect", bundle.folder)
    assert damaged.returncode == 1
    assert "model.int8.rtx.engine has SHA-256" in damaged.stderr


def test_an_engine_that_cannot_be_built_is_missing_in_a_bundle_that_is_written(fitted: Path, tmp_path: Path) -> None:
    code, said = export(fitted, tmp_path, "--engines", "rtx", "--compute-capability", "7.5")
    assert code == 1
    assert "was written without an engine: TensorRT for RTX could not build the engine" in said
    assert open_bundle(tmp_path / "pets" / "1").manifest.engines == ()


def test_an_engine_of_a_precision_that_is_not_exported_is_an_error(fitted: Path, tmp_path: Path) -> None:
    code, said = export(fitted, tmp_path, "--engines", "rtx", "--engine-precisions", "int8")
    assert code == 1
    assert "no int8 file for an engine: add int8-trt to --precisions" in said


def test_without_tensorrt_for_rtx_nothing_is_exported(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    code, said = export(fitted, tmp_path, "--engines", "rtx")
    assert code == 1
    assert "pip install 'pawserve[tensorrt-rtx]'" in said
    assert not (tmp_path / "pets").exists()
