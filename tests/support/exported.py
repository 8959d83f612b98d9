"""Exported graphs of networks by their timm name, as `export bundle` makes them, without a run."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import TensorsData
from PIL import Image

from export.calibrate import measure_ranges
from export.graphs.fp16 import fold_norms, to_fp16
from export.graphs.onnx import DeployedModel, reparameterize, to_onnx
from export.graphs.quantize import quantize
from serving.bundle.manifest import Artifact, Bundle, Manifest, open_bundle
from serving.image.preprocess import Preprocess
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone
from training.networks.weights import load_weights

LITE0 = "tf_efficientnet_lite0"


def varied_images(crop: int, count: int = 8) -> NDArray[np.uint8]:
    """Images with soft shapes in many colours, uint8 `[count, crop, crop, 3]`; networks see each differently."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        coarse = random.integers(0, 256, (random.integers(2, 7), random.integers(2, 7), 3), np.uint8)
        images.append(np.asarray(Image.fromarray(coarse).resize((crop, crop), Image.Resampling.BICUBIC)))
    return np.stack(images)


@cache
def classifier(arch: str, crop: int) -> Classifier:
    """A network of two classes: ImageNet weights for lite0, random ones for others.

    The head is random, and scaled so that its probabilities differ from image to image.
    """
    torch.manual_seed(0)
    backbone = describe_backbone(arch)
    body = Body(backbone)
    load_weights(body.network, arch, "pretrained" if arch == LITE0 else "none")
    network = Classifier(body, Head(count_features(body, crop), 2, width=32)).eval()
    last = network.head[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        logits_N2 = network(torch.from_numpy(varied_images(crop, 32)))
        difference_N = logits_N2[:, 0] - logits_N2[:, 1]
        factor = 3 / float(difference_N.std().clamp(min=1e-3))
        last.weight *= factor
        last.bias *= factor
        last.bias[0] -= factor * difference_N.mean()
    return network


@cache
def fp32_graph(arch: str, crop: int) -> bytes:
    """The graph of `model.fp32.onnx`."""
    return to_onnx(DeployedModel(reparameterize(classifier(arch, crop)), 1.0).eval(), crop)


@cache
def ranges(arch: str, crop: int) -> TensorsData:
    """Ranges of the activations."""
    return measure_ranges(fp32_graph(arch, crop), varied_images(crop))


@cache
def graph_of(arch: str, crop: int, target: str) -> bytes:
    """The graph of one of `export bundle`'s targets: fp32, fp16 or int8-trt."""
    if target == "fp32":
        return fp32_graph(arch, crop)
    if target == "int8-trt":
        return quantize(fp32_graph(arch, crop), ranges(arch, crop), "tensorrt")
    images = torch.from_numpy(varied_images(crop))
    folded = fold_norms(classifier(arch, crop), images[:1])
    return to_onnx(DeployedModel(to_fp16(folded, images), 1.0).eval(), crop)


def write_exported_bundle(models: Path, arch: str, crop: int, *targets: str) -> Bundle:
    """Write `models/pets/1` with the graphs of some targets."""
    folder = models / "pets" / "1"
    folder.mkdir(parents=True)
    artifacts = []
    for target in targets:
        graph = graph_of(arch, crop, target)
        (folder / f"model.{target}.onnx").write_bytes(graph)
        artifacts.append(
            Artifact(
                file=f"model.{target}.onnx",
                precision="int8" if target == "int8-trt" else target,  # type: ignore[arg-type]
                runtime="tensorrt" if target == "int8-trt" else "onnxruntime",
                sha256=hashlib.sha256(graph).hexdigest(),
                bytes=len(graph),
            )
        )
    backbone = describe_backbone(arch)
    manifest = Manifest(
        name="pets",
        version=1,
        created="2026-01-01T00:00:00+00:00",
        arch=arch,
        classes=("cat", "dog"),
        preprocess=Preprocess(resize=crop, crop=crop),
        mean=backbone.mean,
        std=backbone.std,
        temperature=1.0,
        artifacts=tuple(artifacts),
        metrics={"accuracy": {"value": 0.9, "lower": 0.8, "upper": 0.95}, "n": 10},
        fingerprints={},
        versions={},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return open_bundle(folder)
