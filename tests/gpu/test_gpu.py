"""Training, export and inference on a GPU: `make gpu-check`. The tests are skipped where there is no GPU."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from export.engine import build_and_check
from export.inference import open_session, predict
from export.tensorrt_plan import PlanOptions
from serving.bundle.manifest import Bundle, Precision
from serving.engine.cuda import Gpu
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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_on_cuda_agrees_with_the_cpu(
    bundle: Bundle, measured: list[dict[str, object]], precision: Precision
) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed: pip install 'pawserve[gpu]'")
    onnxruntime.preload_dlls()
    graph = bundle.read(bundle.artifact(precision))
    session = onnxruntime.InferenceSession(graph, providers=["CUDAExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider", "it fell back to the CPU"
    crop = bundle.manifest.preprocess.crop
    images = np.random.default_rng(0).integers(0, 256, (8, crop, crop, 3), np.uint8)
    difference = np.abs(predict(session, images) - predict(open_session(graph), images)).max()
    measured.append({"what": f"ONNX Runtime CUDA, {precision}", "max abs diff": float(difference)})
    assert difference <= {"fp32": 1e-3, "fp16": 5e-3}[precision]  # TF32 convolutions are on by default


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_tensorrt_engine_is_built_and_agrees_with_onnx_runtime(
    bundle: Bundle,
    drawings: Path,
    measured: list[dict[str, object]],
    tmp_path: Path,
    precision: Precision,
) -> None:
    if find_spec("tensorrt") is None:
        pytest.skip("TensorRT is not installed: pip install 'pawserve[gpu]' with NVIDIA's package index")
    options = PlanOptions(min_batch=1, opt_batch=16, max_batch=64)
    result = build_and_check(bundle, precision, options, tmp_path, drawings / "valid")
    again = build_and_check(bundle, precision, options, tmp_path, drawings / "valid")
    assert again["engine"] == result["engine"], "it was built again instead of taken from the cache"
    rates = {f"batch {rate['batch']}": f"{rate['images_per_second']:.0f} images/s" for rate in result["rates"]}
    measured.append({"what": f"TensorRT {precision}", "max abs diff": result["parity"]["max_abs_diff"], **rates})
