"""A bundle whose network the fake GPU computes as ONNX Runtime does."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from serving.bundle.manifest import Artifact, Bundle, Manifest
from serving.image.preprocess import Preprocess
from tests.support.fake_gpu import CLASSES, CROP, sha256


def graph(name: str = "g") -> bytes:
    """The network that the fake engine computes, as ONNX; each name gives other bytes."""
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "scale": np.array([[0, 1 / 32]], np.float32),
        "bias": np.array([0, -4], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["means"]),
        helper.make_node("Gemm", ["means", "scale", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants["column"] = np.array([-1, 1], np.int64)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", CROP, CROP, 3])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return model.SerializeToString()


def write_fake_bundle(tmp_path: Path) -> Bundle:
    """Write `tmp_path`/models/pets/1."""
    folder = tmp_path / "models" / "pets" / "1"
    folder.mkdir(parents=True)
    content = graph()
    (folder / "model.fp32.onnx").write_bytes(content)
    artifact = Artifact(file="model.fp32.onnx", precision="fp32", sha256=sha256(content), bytes=len(content))
    preprocess = Preprocess(crop=16, resize=16)
    object.__setattr__(preprocess, "crop", CROP)  # smaller than a network's, so that the tests are quick
    manifest = Manifest(
        name="pets",
        version=1,
        created="2026-01-01T00:00:00+00:00",
        arch="resnet34",
        classes=("cats", "dogs"),
        preprocess=preprocess,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        temperature=1.0,
        artifacts=(artifact,),
        metrics={},
        fingerprints={},
        versions={},
    )
    return Bundle(folder, manifest)
