"""Backbones of every family of timm: their feature maps are pooled over height and width, or they are rejected."""

import re
from collections import defaultdict

import pytest
import timm
import torch
from timm.models import model_entrypoint

from training.networks.layer_groups import layer_groups
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone

SMALL = ("test_", "atto", "femto", "pico", "nano", "xxs", "xx_?small", "_xs", "x_small", "_t(?![a-z])", "tiny", "_ti_")
SMALL += ("050", "small", "_n_", "s0", "b0", "_s(?![a-z])", "128s", "m1", "18", "26", "t12", "s12", "_s_")


def smallest_of_each_family() -> list[str]:
    """One model of each of timm's modules, by name a small one."""
    families = defaultdict(list)
    for name in timm.list_models():
        families[model_entrypoint(name).__module__].append(name)

    def size(name: str) -> tuple[int, int, str]:
        rank = next((at for at, word in enumerate(SMALL) if re.search(word, name)), len(SMALL))
        return rank, int(next(iter(re.findall(r"(?<!\d)\d+", name[3:])), "0")), name

    return [min(names, key=size) for _, names in sorted(families.items())]


@pytest.mark.parametrize(
    ("arch", "features"),
    [("swin_tiny_patch4_window7_224", 2 * 768), ("test_mambaout", 2 * 256), ("test_resnet", 2 * 96)],
)
def test_a_feature_map_is_pooled_over_height_and_width(arch: str, features: int) -> None:
    body = Body(describe_backbone(arch)).eval()
    crop = body.network.default_cfg["input_size"][-1]
    assert count_features(body, crop) == features
    images = torch.randint(256, (2, crop, crop, 3), dtype=torch.uint8)
    with torch.inference_mode():
        pooled = body(images)
        maps = body.network((images.permute(0, 3, 1, 2).float() - body.mean) * body.scale)
    side = maps.shape[2]  # the maps are [N, side, side, C] or [N, C, side, side]
    by_channel = maps.reshape(2, side * side, -1) if maps.shape[1] == side else maps.flatten(2).transpose(1, 2)
    expected = torch.cat([by_channel.max(1).values, by_channel.mean(1)], 1)
    assert pooled.shape == (2, features)
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("test_vit", r"tokens \[N, L, C\] of shape \[1, 101, 64\]"),
        ("crossvit_tiny_240", "without its pooling"),
        ("inception_next_atto", "without its pooling"),
    ],
)
def test_a_backbone_without_a_feature_map_is_rejected_with_the_reason(arch: str, reason: str) -> None:
    backbone = describe_backbone(arch)
    with pytest.raises(ValueError, match=reason):
        count_features(Body(backbone), backbone.preprocess.crop)


@pytest.mark.slow
@pytest.mark.parametrize("arch", smallest_of_each_family())
def test_a_model_of_each_family_works_or_is_rejected_with_a_reason(arch: str) -> None:
    backbone = describe_backbone(arch)
    try:
        body = Body(backbone)
        features = count_features(body, backbone.preprocess.crop)
        classifier = Classifier(body, Head(features, 2, width=16))
        groups = layer_groups(classifier, 2, 0)
    except ValueError as error:
        print(f"rejected: {arch}: {error}")
        return
    assert sum(group.size for group in groups) == sum(weight.numel() for weight in classifier.parameters())
    assert features // 2 in (body.network.num_features, getattr(body.network, "head_hidden_size", None))
    print(f"works: {arch}: {features} features")


@pytest.mark.parametrize("arch", ["caformer_s18", "rdnet_tiny"])
def test_a_backbone_without_timm_s_groups_is_divided_by_the_names_of_its_layers(arch: str) -> None:
    with torch.device("meta"):
        classifier = Classifier(Body(describe_backbone(arch)), Head(8, 2, width=16))
    groups = layer_groups(classifier, 3, 0)
    assert all(group.size for group in groups)
    assert sum(group.size for group in groups) == sum(weight.numel() for weight in classifier.parameters())
