"""The deployed network as a torch module and as an ONNX graph: uint8 images to calibrated probabilities."""

from typing import cast

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from serving.bundle.manifest import OUTPUT_NAME
from training.networks.model import Network
from training.networks.onnx import export_graph


class DeployedModel(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> probabilities float32 `[N, K]`: all that lies between pixels and prediction."""

    def __init__(self, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return torch.softmax(self.classifier(images_NHWC) / self.temperature, 1)


def reparameterize(network: Network) -> Network:
    """A copy that computes the same with fewer layers: blocks trained with parallel branches become one convolution."""
    return cast(Network, reparameterize_model(network).eval())


def to_onnx(model: DeployedModel, crop: int) -> bytes:
    """Export to a serialised ModelProto with input `images` `[N, crop, crop, 3]` and output `probabilities`."""
    return export_graph(model, crop, output_name=OUTPUT_NAME)
