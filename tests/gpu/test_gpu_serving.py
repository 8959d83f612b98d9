"""Serving on a GPU gives the predictions of the CPU; throughput by batch size is reported."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.engine import build_and_check
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Bundle, Precision
from serving.engine.cuda import Gpu
from serving.engine.onnx import load_graph
from serving.engine.onnx_package import why_no_cuda
from serving.engine.tensorrt_rtx import RTX, TENSORRT
from tests.support.answers import ask, check_answers
from tests.support.gpu import skip_without, skip_without_tensorrt

pytestmark = pytest.mark.gpu

BATCHES = (1, 8, 32)
IMAGES = 2_048


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        *(("cuda", "fp32"), ("cuda", "fp16"), ("tensorrt", "fp16"), ("tensorrt", "int8")),
        *(("tensorrt-rtx", "fp16"), ("tensorrt-rtx", "int8")),
    ],
)
def test_a_server_on_the_gpu_agrees_with_one_on_the_cpu(
    gpu: Gpu,
    bundle: Bundle,
    images_NHWC: NDArray[np.uint8],
    photos: Path,
    measured: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    precision: Precision,
) -> None:
    if engine == "cuda":
        skip_without("cuda", why_no_cuda())
    else:
        library = RTX if engine == "tensorrt-rtx" else TENSORRT
        skip_without_tensorrt(library, gpu)
        monkeypatch.setenv("PAWSERVE_ENGINES", str(tmp_path / "engines"))
        build_and_check(bundle, precision, PlanOptions(max_batch=32), tmp_path / "engines", photos, library)
    files = [file.read_bytes() for file in sorted(photos.rglob("*.png"), key=lambda file: file.name)]
    artifact = bundle.artifact(precision, "onnxruntime" if engine == "cuda" else "tensorrt")
    expected_NK = load_graph(bundle.read(artifact))(images_NHWC)
    rates = {}
    for batch in BATCHES:
        many = (files * (IMAGES // len(files) + 1))[:IMAGES]
        options = ("--engine", engine, "--precision", precision, "--max-batch-size", batch)
        found, rate, runtime = ask(bundle, tmp_path / f"gpu {batch}", many, *options)
        assert runtime.endswith(engine), "it computes elsewhere than it was told to"
        first_N = np.array(found[: len(files)], np.float32)
        check_answers(np.stack([first_N, 1 - first_N], 1), expected_NK, precision)
        rates[f"batch {batch}"] = f"{rate:.0f} images/s"
    measured.append({"what": f"serving, {engine} {precision}, {gpu.name}", **rates})
