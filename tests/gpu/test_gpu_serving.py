"""Serving on a GPU gives the predictions of the CPU; throughput by batch size is reported."""

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.engine import build_and_check
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Bundle, Precision
from serving.client import Client, Prediction
from serving.engine.cuda import Gpu
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

pytestmark = pytest.mark.gpu

BATCHES = (1, 8, 32)
IMAGES = 2_000


def ask(bundle: Bundle, state: Path, photos: Sequence[bytes], *options: object) -> tuple[list[float], float, str]:
    """The probability of the first class for each image, images per second, and the runtime."""
    models, manifest = bundle.folder.parent.parent, bundle.manifest
    which = ("--model", f"{manifest.name}/{manifest.version}", *options)
    with running_server(models, state, *which) as address, Client(address, timeout_s=LIMIT_S) as client:
        (model,) = client.list_models()
        list(client.classify_many(photos[:64]))
        begin = time.perf_counter()
        answers = sorted(client.classify_many(photos), key=lambda answer: answer.index)
        rate = len(photos) / (time.perf_counter() - begin)
    first = []
    for answer in answers:
        assert isinstance(answer.result, Prediction), answer.result
        first.append(dict(answer.result.classes)[manifest.classes[0]])
    return first, rate, model.runtime


@pytest.mark.parametrize(
    ("engine", "precision"), [("cuda", "fp32"), ("cuda", "fp16"), ("tensorrt", "fp16"), ("tensorrt", "int8")]
)
def test_a_server_on_the_gpu_agrees_with_one_on_the_cpu(
    gpu: Gpu,
    bundle: Bundle,
    drawings: Path,
    measured: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    precision: Precision,
) -> None:
    if engine == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed: pip install 'pawserve[gpu]'")
    if engine == "tensorrt":
        if find_spec("tensorrt") is None:
            pytest.skip("TensorRT is not installed: pip install 'pawserve[gpu]' with NVIDIA's package index")
        monkeypatch.setenv("PAWSERVE_ENGINES", str(tmp_path / "engines"))
        build_and_check(bundle, precision, PlanOptions(max_batch=32), tmp_path / "engines", drawings / "valid")
    files = sorted((drawings / "valid").rglob("*.jpg"))
    photos = [file.read_bytes() for file in files]
    expected, _, _ = ask(bundle, tmp_path / "cpu", photos, "--engine", "cpu", "--precision", "fp32")
    rates = {}
    for batch in BATCHES:
        many = (photos * (IMAGES // len(photos) + 1))[:IMAGES]
        options = ("--engine", engine, "--precision", precision, "--max-batch-size", batch)
        found, rate, runtime = ask(bundle, tmp_path / f"gpu {batch}", many, *options)
        assert runtime.endswith(engine), "it computes elsewhere than it was told to"
        differences = np.abs(np.array(found[: len(photos)]) - expected)
        assert differences.mean() <= {"fp32": 1e-3, "fp16": 5e-3, "int8": 0.1}[precision]
        rates[f"batch {batch}"] = f"{rate:.0f} images/s"
    measured.append({"what": f"serving, {engine} {precision}, {gpu.name}", **rates})
