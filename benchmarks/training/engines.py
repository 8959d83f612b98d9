"""Random images through a pretrained body in every engine, without decoding: images a second."""

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.system.cpus import available_cpus
from training.features.extract import Extract, onnx_extractor, read_graph
from training.networks.model import Body, describe_backbone
from training.networks.weights import load_weights

ARCH = "tf_efficientnet_lite0"
SIZE = 224
"""Pixels of a side."""
ENGINE_BATCH = 16
RUNTIME = "ONNX Runtime, a single-threaded call a core"


def pretrained_body(arch: str = ARCH, weights: str = "pretrained") -> Body:
    """The body with which everything here is measured."""
    body = Body(describe_backbone(arch))
    load_weights(body.network, arch, weights)
    return body


def measure_rate(work: Callable[[], object], seconds: float) -> float:
    """Images a second over so many seconds or one call, after one call to warm up; a call computes a batch."""
    work()
    began, calls = time.monotonic(), 0
    while not calls or time.monotonic() - began < seconds:
        work()
        calls += 1
    return round(calls * ENGINE_BATCH / (time.monotonic() - began), 1)


def random_images() -> NDArray[np.uint8]:
    """A batch of noise, uint8 `[N, SIZE, SIZE, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (ENGINE_BATCH, SIZE, SIZE, 3), np.uint8)


def measure_engines(folder: Path, seconds: float) -> dict[str, float]:
    """Images a second through the pretrained body, by engine, on all cores."""
    images = random_images()
    tensor = torch.from_numpy(images)
    body = pretrained_body().eval()

    def in_torch(run: Callable[[Tensor], Tensor]) -> float:
        with torch.inference_mode():
            return measure_rate(lambda: run(tensor), seconds)

    found = {"torch eager": in_torch(copy.deepcopy(body))}
    channels_last = copy.deepcopy(body).to(memory_format=torch.channels_last)
    found["torch eager, channels_last"] = in_torch(channels_last)
    began = time.monotonic()
    compiled = torch.compile(channels_last, options={"freezing": True})
    with torch.inference_mode():
        compiled(tensor)
    compile_s = round(time.monotonic() - began, 1)
    found |= {"torch.compile, frozen, channels_last": in_torch(compiled), "(seconds to compile)": compile_s}
    began = time.monotonic()
    extract = onnx_extractor(body, SIZE, folder / "body")
    found["(seconds to prepare ONNX Runtime)"] = round(time.monotonic() - began, 1)
    session = onnxruntime.InferenceSession(read_graph(folder / "body"), providers=["CPUExecutionProvider"])
    one_call = partial(session.run, None, {"images": images})
    found["ONNX Runtime, one call on all cores"] = measure_rate(one_call, seconds)
    found[RUNTIME] = measure_runtime(extract, seconds)
    return found


def measure_runtime(extract: Extract, seconds: float) -> float:
    """Random images a second in ONNX Runtime, with one call per core at a time."""
    images = random_images()
    rows = [images[row : row + 1] for row in range(len(images))]
    with ThreadPoolExecutor(available_cpus()) as pool:
        return measure_rate(lambda: list(pool.map(extract, rows)), seconds)
