"""Training, export and inference on a GPU: `make gpu-check`. The tests are skipped where there is no GPU."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from export.engine import build_and_check
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Bundle, Precision
from serving.engine.base import EngineLayout
from serving.engine.cuda import Gpu
from serving.engine.onnx import AlgorithmSearch, OnnxModel, load_graph
from serving.engine.onnx_package import why_no_cuda
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine
from serving.engine.tensorrt_cache import read_plan, read_sidecar
from serving.engine.tensorrt_library import Flavor
from serving.engine.tensorrt_rtx import LIBRARIES
from tests.support.answers import check_answers
from tests.support.gpu import skip_without, skip_without_tensorrt
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_in_mixed_precision_learns(gpu: Gpu, measured: list[dict[str, object]], dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        pytest.skip(f"{gpu.name} has no bfloat16")
    torch.manual_seed(0)
    body = Body(describe_backbone("test_resnet"))
    network = Classifier(body, Head(count_features(body, 160), 2)).cuda().train()
    images = torch.randint(0, 128, (16, 160, 160, 3), dtype=torch.uint8)
    images[8:] += 100
    labels = torch.arange(16, device="cuda") // 8
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
    losses = []
    for _ in range(20):
        with torch.autocast("cuda", dtype):
            loss = functional.cross_entropy(network(images.cuda()), labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    measured.append({"what": f"training, {dtype}", "first loss": losses[0], "last loss": losses[-1]})
    assert all(np.isfinite(losses))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("search", ["EXHAUSTIVE", "HEURISTIC"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_on_cuda_agrees_with_the_cpu(
    bundle: Bundle,
    images_NHWC: NDArray[np.uint8],
    measured: list[dict[str, object]],
    precision: Precision,
    search: AlgorithmSearch,
) -> None:
    skip_without("cuda", why_no_cuda())
    onnxruntime.preload_dlls()
    artifact = bundle.artifact(precision)
    began = time.perf_counter()
    model = OnnxModel(bundle, artifact, "cuda", search)
    (engine,) = model.make_engines(EngineLayout(instances=1, threads=1, max_batch_size=len(images_NHWC)))
    started = time.perf_counter()
    found_NK = np.concatenate([engine.run(images_NHWC[:7]), engine.run(images_NHWC[7:])])  # padded to 8 and to 64
    computed = time.perf_counter()
    engine.run(images_NHWC)
    rate = len(images_NHWC) / (time.perf_counter() - computed)
    difference = check_answers(found_NK, load_graph(bundle.read(artifact))(images_NHWC), precision)
    facts = {"mean abs diff": difference, "start": f"{started - began:.1f} s", "batch 64": f"{rate:.0f} images/s"}
    measured.append({"what": f"ONNX Runtime CUDA, {precision}, {search}", **facts})


def test_a_spoilt_batch_is_noticed_on_the_gpu_too(bundle: Bundle, images_NHWC: NDArray[np.uint8]) -> None:
    expected_NK = load_graph(bundle.read(bundle.artifact("fp32")))(images_NHWC)
    for spoilt_NK in (np.roll(expected_NK, 1, 0), np.tile(expected_NK[:1], (len(expected_NK), 1))):
        with pytest.raises(AssertionError, match="int8 differs by"):
            check_answers(spoilt_NK, expected_NK, "int8")


@pytest.mark.tensorrt
@pytest.mark.parametrize("flavor", ["tensorrt", "rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_and_agrees_with_onnx_runtime(
    gpu: Gpu,
    bundle: Bundle,
    images_NHWC: NDArray[np.uint8],
    photos: Path,
    measured: list[dict[str, object]],
    tmp_path: Path,
    precision: Precision,
    flavor: Flavor,
) -> None:
    library = LIBRARIES[flavor]
    skip_without_tensorrt(library, gpu)
    options = PlanOptions(min_batch=1, opt_batch=16, max_batch=64)
    result = build_and_check(bundle, precision, options, tmp_path, photos, library)
    again = build_and_check(bundle, precision, options, tmp_path, photos, library)
    assert again["engine"]["plan_sha256"] == result["engine"]["plan_sha256"], "it was built again"
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    sidecar = read_sidecar(folder)
    assert sidecar.misfit(gpu, library.version()) is None
    assert sidecar.check == "passed"
    plan = read_plan(folder, sidecar)
    expected_NK = load_graph(bundle.read(bundle.artifact(precision, "tensorrt")))(images_NHWC)
    with TensorRTEngine(LoadedPlan(plan, library, tmp_path / "kernels.bin")) as engine:
        found_NK = np.concatenate([engine.run(images_NHWC[:7]), engine.run(images_NHWC[7:])])
    difference = check_answers(found_NK, expected_NK, precision)
    rates = {f"batch {rate['batch']}": f"{rate['images_per_second']:.0f} images/s" for rate in result["rates"]}
    types = ", ".join(f"{count} {each}" for each, count in result["engine"]["layers"].get("weighted", {}).items())
    measured.append({"what": f"{library.title} {precision}", "mean abs diff": difference, "layers": types, **rates})
