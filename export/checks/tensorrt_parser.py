"""What TensorRT's own parser says about a graph. TensorRT for RTX has the same parser as TensorRT, and needs no GPU."""

import tempfile
from pathlib import Path
from typing import Any

from serving.engine.tensorrt_library import make_logger
from serving.engine.tensorrt_rtx import RTX


def parse_problems(parser: Any, graph: bytes) -> list[str]:
    """Parse a graph into a parser's network.

    Returns:
        What the parser says about each node that it cannot read; empty if it reads the graph.
    """
    with tempfile.TemporaryDirectory(prefix="pawserve.") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(graph)
        if parser.parse_from_file(str(path)):
            return []
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        problems.append(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}")
    return problems or ["it names no node"]


def find_problems(graph: bytes) -> list[str] | None:
    """Problems that TensorRT for RTX's parser finds in a graph; None where it is not installed."""
    if not RTX.is_installed():
        return None
    trt = RTX.load()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network()
    return parse_problems(trt.OnnxParser(network, logger), graph)
