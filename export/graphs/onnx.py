"""Trained classifiers in; the model graph, uint8 images to calibrated probabilities, out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from serving.bundle.manifest import OUTPUT_NAME
from training.networks.onnx import export_graph


class DeployedModel(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> probabilities float32 `[N, K]`: everything between pixels and answer.

    Several classifiers make an ensemble: each answers with its logits divided by the temperature, and the
    probabilities are averaged.
    """

    def __init__(self, classifiers: nn.Module | Sequence[nn.Module], temperature: float) -> None:
        super().__init__()
        members = [classifiers] if isinstance(classifiers, nn.Module) else list(classifiers)
        if not members:
            raise ValueError("an ensemble of no classifiers was given; at least one is needed")
        self.classifiers = nn.ModuleList(members)
        self.temperature = temperature

    def forward(self, images_NHWC: Tensor) -> Tensor:
        first, *others = [
            torch.softmax(classifier(images_NHWC) / self.temperature, 1) for classifier in self.classifiers
        ]
        return sum(others, first) / len(self.classifiers) if others else first


def to_onnx(model: DeployedModel, crop: int) -> bytes:
    """The graph: a serialised ModelProto with input `images` and output `probabilities`."""
    return export_graph(model, crop, output_name=OUTPUT_NAME)
