"""Networks in which float16 overflows, and networks trained with branches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.checks.checks import Tolerances
from export.checks.verify import ParityReference
from export.graphs.fp16 import find_overflows, fold_norms, to_fp16
from export.graphs.onnx import DeployedModel, reparameterize
from export.mixed_precision import export_fp16
from serving.bundle.manifest import OUTPUT_NAME
from serving.engine.onnx import load_graph
from training.data.images import LabelledImage
from training.networks.model import Body, Classifier, Head, build_body, describe_backbone
from training.networks.onnx import export_graph


@pytest.fixture
def overflowing() -> Classifier:
    """A network whose stem makes values of up to a million, and whose next layers make them small again."""
    torch.manual_seed(0)
    backbone = describe_backbone("test_resnet")
    classifier = Classifier(Body(backbone), Head(2 * build_body("test_resnet").num_features, 2, width=16)).eval()
    network = classifier.body.network
    with torch.no_grad():
        network.bn1.weight *= 1e6
        network.bn1.bias *= 1e6
        for convolution in (network.layer2[0].conv1, network.layer2[0].downsample[1]):
            convolution.weight /= 1e6
    return classifier


IMAGES = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_blocks_in_which_float16_overflows_stay_in_float32_with_their_outputs(overflowing: Classifier) -> None:
    folded = fold_norms(overflowing, IMAGES[:1])
    overflows = find_overflows(folded, IMAGES, {}, most=8)
    assert overflows == {"conv1.6": "conv1.6", "bn1": "bn1", "layer1.0": "layer1.0", "layer2.0": "layer2.0"}
    graph = export_graph(to_fp16(folded, IMAGES, overflows), 64, output_name=OUTPUT_NAME)
    with torch.inference_mode():
        expected_NK = folded(IMAGES).numpy()
    np.testing.assert_allclose(load_graph(graph)(IMAGES.numpy()), expected_NK, atol=0.02)
    without = export_graph(to_fp16(folded, IMAGES), 64, output_name=OUTPUT_NAME)
    assert not np.isfinite(load_graph(without)(IMAGES.numpy())).all()


def test_a_network_that_overflows_in_too_many_blocks_is_an_error_that_names_the_layer(overflowing: Classifier) -> None:
    folded = fold_norms(overflowing, IMAGES[:1])
    with pytest.raises(ValueError, match="layer bn1 overflows.* 65,504, as do those of 1 blocks"):
        find_overflows(folded, IMAGES, {}, most=1)


@pytest.mark.slow
def test_an_overflow_on_an_image_to_check_is_found_with_its_layer(
    overflowing: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images to calibrate on are grey, and those to check are not."""
    network = overflowing.body.network
    with torch.no_grad():
        network.bn1.weight /= 10
        network.bn1.bias /= 10
    images = torch.cat([torch.full_like(IMAGES, 127), IMAGES])
    with torch.inference_mode():
        probabilities_NK = torch.softmax(overflowing(images), 1).numpy()
    listed = [LabelledImage(Path(f"{row}.jpg"), 0) for row in range(len(images))]
    deployed = DeployedModel(overflowing, 1.0).eval()
    reference = ParityReference(deployed, listed, images.numpy(), probabilities_NK, Tolerances(max_diff_fp16=0.02))
    assert find_overflows(fold_norms(overflowing, images[:1]), images[:2], {}, most=8) == {}
    converted, facts = export_fp16(overflowing, 1.0, images[:2].numpy(), reference)
    assert facts["overflows"] == {"conv1.6": "conv1.6", "bn1": "bn1", "layer1.0": "layer1.0", "layer2.0": "layer2.0"}
    assert "fp16: layer bn1 exceeds float16's range; block bn1 stays in float32" in capsys.readouterr().err
    found_NK = load_graph(converted.graph)(images.numpy())
    np.testing.assert_allclose(found_NK, probabilities_NK, atol=0.02)


def test_networks_trained_with_branches_are_exported_without_them() -> None:
    torch.manual_seed(0)
    body = Body(describe_backbone("mobileone_s0"))
    classifier = Classifier(body, Head(2 * body.network.num_features, 2, width=16)).train()
    with torch.no_grad():
        classifier(IMAGES)  # gives the batch norms statistics of their own
        classifier.eval()
        expected_NK = classifier(IMAGES)
        fused = reparameterize(classifier)
        torch.testing.assert_close(fused(IMAGES), expected_NK, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(classifier(IMAGES), expected_NK, atol=0, rtol=0)
    assert len(list(classifier.modules())) > 2 * len(list(fused.modules()))
    weights, fewer = (sum(weight.numel() for weight in network.parameters()) for network in (classifier, fused))
    assert fewer < 0.9 * weights
