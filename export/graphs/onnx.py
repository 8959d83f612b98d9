"""The deployed network as a torch module and as an ONNX graph: uint8 images to calibrated probabilities."""

from collections.abc import Sequence
from typing import cast

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from serving.bundle.manifest import OUTPUT_NAME
from training.networks.model import Network
from training.networks.onnx import export_graph


class DeployedModel(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> probabilities float32 `[N, K]`: all that lies between pixels and prediction.

    Several classifiers form an ensemble: the logits of each are divided by the temperature, and the probabilities are
    averaged.
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


def reparameterize(network: Network) -> Network:
    """A copy that computes the same with fewer layers: blocks trained with parallel branches become one convolution."""
    return cast(Network, reparameterize_model(network).eval())


def to_onnx(model: DeployedModel, crop: int) -> bytes:
    """Export to a serialised ModelProto with input `images` `[N, crop, crop, 3]` and output `probabilities`."""
    return export_graph(model, crop, output_name=OUTPUT_NAME)
