"""Trained classifiers in; the deployable graph, uint8 images to calibrated probabilities, out."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from export.graph import export_graph
from serving.bundle import OUTPUT_NAME
from training.model import Classifier


class Deployable(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> probabilities float32 `[N, K]`: everything between pixels and answer.

    Several classifiers make an ensemble: each answers with its logits divided by the temperature, and the
    probabilities are averaged.
    """

    def __init__(self, classifiers: Sequence[nn.Module], temperature: float) -> None:
        super().__init__()
        if not classifiers:
            raise ValueError("an ensemble of no classifiers was given; at least one is needed")
        self.classifiers = nn.ModuleList(classifiers)
        self.temperature = temperature

    def forward(self, images_NHWC: Tensor) -> Tensor:
        # Logits of a half-precision classifier become float32 before softmax; float32 ones are left as they are.
        first, *others = [
            torch.softmax(classifier(images_NHWC).to(torch.float32) / self.temperature, 1)
            for classifier in self.classifiers
        ]
        return sum(others, first) / len(self.classifiers) if others else first


class _ToHalf(nn.Module):
    """float32 -> float16, same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float16)


def half(classifier: Classifier) -> Classifier:
    """A copy whose body and head compute in float16; cast and normalisation before them stay float32."""
    halved = copy.deepcopy(classifier)
    halved.body.network = nn.Sequential(_ToHalf(), halved.body.network.half())
    halved.head.half()
    return halved.eval()


def to_onnx(deployable: Deployable, crop: int) -> bytes:
    """The graph: a serialised ModelProto with input `images` and output `probabilities`."""
    return export_graph(deployable, crop, output_name=OUTPUT_NAME)
