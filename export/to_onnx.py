"""A trained classifier in; the deployable graph, uint8 images to calibrated probabilities, out."""

import torch
from torch import Tensor, nn

from export.graph import export_graph
from serving.bundle import OUTPUT_NAME
from training.model import Network


class Deployable(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> probabilities float32 `[N, K]`: everything between pixels and answer."""

    def __init__(self, classifier: Network, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return torch.softmax(self.classifier(images_NHWC) / self.temperature, 1)


def to_onnx(deployable: Deployable, crop: int) -> bytes:
    """The fp32 graph: a serialised ModelProto with input `images` and output `probabilities`."""
    return export_graph(deployable, crop, output_name=OUTPUT_NAME)
