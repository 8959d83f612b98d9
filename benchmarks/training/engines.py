"""Random pictures through a pretrained body, in every engine: photos a second, with no decoding."""

import copy
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from serving.system.cpus import available_cpus
from training.features.extract import Extract, onnx_extractor
from training.networks.model import Body, describe_backbone
from training.networks.weights import load_weights

ARCH = "tf_efficientnet_lite0"
SECONDS = 5.0
ENGINE_BATCH = 16
RUNTIME = "ONNX Runtime, a single-threaded call a core"


def pretrained_body() -> Body:
    """The body that everything here is measured with."""
    body = Body(describe_backbone(ARCH))
    load_weights(body.network, ARCH, "pretrained")
    return body


def rate(work: Callable[[], int]) -> float:
    """Photos a second over `SECONDS` or one call, after one to warm up."""
    work()
    began, done = time.monotonic(), 0
    while not done or time.monotonic() - began < SECONDS:
        done += work()
    return round(done / (time.monotonic() - began), 1)


def fused(body: Body) -> Body:
    """A copy in which every batch norm is part of the convolution before it; only its activation is left."""
    body = copy.deepcopy(body).eval()
    for (_, first), (name, second) in itertools.pairwise(
        (name, module) for name, module in body.named_modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            assert second.running_mean is not None
            assert second.running_var is not None
            first.weight, first.bias = fuse_conv_bn_weights(
                *(first.weight, first.bias, second.running_mean, second.running_var, second.eps),
                *(second.weight, second.bias),
            )
            parent, _, last = name.rpartition(".")
            setattr(body.get_submodule(parent), last, getattr(second, "act", nn.Identity()))
    return body


def engines(body: Body, crop: int, folder: Path) -> dict[str, float]:
    """Rates of random pictures through the body, by engine: all cores, no decoding."""
    images = np.random.default_rng(0).integers(0, 256, (ENGINE_BATCH, crop, crop, 3), np.uint8)
    tensor = torch.from_numpy(images)
    body = body.eval()

    def in_torch(run: Callable[[Tensor], Tensor]) -> float:
        def work() -> int:
            with torch.inference_mode():
                run(tensor)
            return len(images)

        return rate(work)

    with torch.inference_mode():
        expected = body(tensor)
        assert torch.allclose(fused(body)(tensor), expected, rtol=1e-2, atol=1e-3)
    found = {"torch eager": in_torch(copy.deepcopy(body))}
    channels_last = copy.deepcopy(body).to(memory_format=torch.channels_last)
    found["torch eager, channels_last"] = in_torch(channels_last)
    found["torch, batch norms fused, channels_last"] = in_torch(fused(body).to(memory_format=torch.channels_last))
    began = time.monotonic()
    compiled = torch.compile(channels_last, options={"freezing": True})
    with torch.inference_mode():
        compiled(tensor)
    seconds = time.monotonic() - began
    found["torch.compile, frozen, channels_last"] = in_torch(compiled)
    found["(seconds to compile)"] = round(seconds, 1)
    began = time.monotonic()
    extract = onnx_extractor(body, crop, folder / "body.onnx")
    found["(seconds to prepare ONNX Runtime)"] = round(time.monotonic() - began, 1)
    session = onnxruntime.InferenceSession(folder / "body.onnx", providers=["CPUExecutionProvider"])

    def one_call() -> int:
        session.run(None, {"images": images})
        return len(images)

    found["ONNX Runtime, one call on all cores"] = rate(one_call)
    found[RUNTIME] = runtime_rate(extract, crop)
    return found


def runtime_rate(extract: Extract, crop: int) -> float:
    """Of ONNX Runtime on random pictures, a call on each core at a time."""
    images = np.random.default_rng(0).integers(0, 256, (ENGINE_BATCH, crop, crop, 3), np.uint8)
    with ThreadPoolExecutor(available_cpus()) as pool:

        def work() -> int:
            return len(list(pool.map(lambda row: extract(images[row : row + 1]), range(len(images)))))

        return rate(work)
