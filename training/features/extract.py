"""Features of images, computed by the fastest engine for the machine.

On a CPU that is ONNX Runtime with single-threaded calls, one for each CPU at a time: 2 to 4 times as fast as torch. On
a GPU it is torch, channels_last, in batches.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from serving.engine.onnx_package import check_complete
from serving.system.files import write_atomically
from training.console import say
from training.networks.model import Body
from training.networks.onnx import export_graph

Extract = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 `[N, H, W, 3]` -> float32 `[N, 2C]`; may be called from several threads at once."""


def onnx_extractor(body: Body, crop: int, cached_graph: Path) -> Extract:
    """Run the body in ONNX Runtime, each call on one thread; the graph is exported once and kept."""
    check_complete()
    graph = read_graph(cached_graph)
    if graph is None:
        say("preparing the network for ONNX Runtime, once: it is kept with the activations")
        graph = export_graph(body, crop, output_name="features")
        cached_graph.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cached_graph, hashlib.sha256(graph).digest() + graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def extract(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(None, {"images": images_NHWC})[0]
        return features

    return extract


def read_graph(cached_graph: Path) -> bytes | None:
    """The kept graph, whose SHA-256 stands before it in the file; None if there is none, or it does not match."""
    content = cached_graph.read_bytes() if cached_graph.exists() else b""
    digest, graph = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
    return graph if hashlib.sha256(graph).digest() == digest else None


def torch_extractor(body: Body, device: torch.device) -> Extract:
    """Run the body in torch, in float32."""
    body = body.eval().to(device).to(memory_format=torch.channels_last)

    def extract(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            features = body(torch.from_numpy(images_NHWC).to(device, non_blocking=True))
        return np.asarray(features.cpu().numpy(), np.float32)

    return extract
