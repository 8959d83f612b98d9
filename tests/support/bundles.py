"""A small bundle made without torch. It tells red, green and blue images apart, so its results are known."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Artifact, Manifest
from serving.image.decode import Limits
from serving.image.preprocess import Preprocess
from serving.models.layout import LayoutOptions
from serving.models.loader import ServingOptions

COLOURS = ("blue", "green", "red")
OPTIONS = ServingOptions(
    layout=LayoutOptions(instances=1, threads=1, max_batch_size=2), layouts=None, max_rows=8, limits=Limits()
)


@cache
def colour_graph(crop: int, *, slowness: int = 0) -> bytes:
    """The network as ONNX: mean colour -> softmax over blue, green, red.

    Args:
        slowness: products of 1,024 x 1,024 matrices added to each call; each takes some milliseconds.
    """
    weights = np.float32([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) / 8
    constants = {"weights": weights, "axes": np.array([1, 2]), "zeros": np.zeros((1024, 1024), np.float32)}
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights"], ["logits"]),
        # products with zeros change nothing, but begin with the input, so that no optimiser can leave them out
        helper.make_node("ReduceMax", ["logits"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["zeros", "largest"], ["product0"]),
        *(helper.make_node("MatMul", [f"product{i}", "zeros"], [f"product{i + 1}"]) for i in range(slowness)),
        helper.make_node("ReduceMax", [f"product{slowness}"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["logits", "nothing"], ["slow_logits"]),
        helper.make_node("Softmax", ["slow_logits"], [OUTPUT_NAME], axis=1),
    ]
    return serialized_graph("colours", nodes, constants, crop)


def serialized_graph(
    name: str, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any]], crop: int
) -> bytes:
    """A network from uint8 `[N, crop, crop, 3]` to the probabilities of the colours, as ONNX."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", crop, crop, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", len(COLOURS)])],
        [numpy_helper.from_array(array, constant) for constant, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_bundle(
    models: Path,
    name: str = "colours",
    version: int = 1,
    *,
    slowness: int = 0,
    content: bytes | None = None,
    **changes: Any,
) -> Path:
    """Write `models/name/version` whole, as `export bundle` does: a server that watches never sees a part of it.

    Args:
        slowness: see `colour_graph`.
        content: bytes of the ONNX file, if other than its manifest says.
        changes: replace fields of the manifest.
    """
    graph = colour_graph(64, slowness=slowness)
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "created": "2026-01-01T00:00:00+00:00",
        "arch": "colours",
        "classes": COLOURS,
        "preprocess": Preprocess(resize=72, crop=64),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "temperature": 1.0,
        "artifacts": (
            Artifact(
                file="model.fp32.onnx", precision="fp32", sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph)
            ),
        ),
        "metrics": {"accuracy": {"value": 0.9, "lower": 0.8, "upper": 0.95}, "n": 10},
        "fingerprints": {},
        "versions": {},
    }
    partial = models / name / f".{version}.partial"
    partial.mkdir(parents=True)
    (partial / "model.json").write_text(Manifest(**{**fields, **changes}).to_json(), encoding="utf-8")
    (partial / "model.fp32.onnx").write_bytes(graph if content is None else content)
    return partial.rename(models / name / str(version))
