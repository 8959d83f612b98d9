"""The width of the head: that of fast.ai on resnet34, and in proportion on other backbones."""

import pytest
import torch

from training.networks.model import Body, Classifier, Head, MeanPredictions, describe_backbone, head_width, network_like


@pytest.mark.parametrize(
    ("arch", "features", "classes", "width"),
    [
        ("resnet34", 1024, 2, 512),
        ("tf_efficientnet_lite0", 2560, 2, 32),
        ("tf_efficientnet_lite0", 2560, 100, 128),  # no fewer units than classes
        ("tf_efficientnet_lite0", 2560, 10_000, 512),
    ],
)
def test_the_head_is_as_wide_as_the_body_is_large(arch: str, features: int, classes: int, width: int) -> None:
    assert head_width(Body(describe_backbone(arch)), features, classes) == width


@pytest.mark.parametrize("width", [7, 512])
def test_a_network_is_rebuilt_from_its_state_for_any_width_of_the_head(width: int) -> None:
    backbone = describe_backbone("test_resnet")
    one = Classifier(Body(backbone), Head(192, 3, width=width))
    several = MeanPredictions([one, Classifier(Body(backbone), Head(192, 3, width=width))])
    for network in (one, several):
        again = network_like(backbone, network.state_dict())
        again.load_state_dict(network.state_dict())
        images = torch.randint(256, (1, 64, 64, 3), dtype=torch.uint8)
        assert torch.equal(again.eval()(images), network.eval()(images))
