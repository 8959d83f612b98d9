"""Layer groups: their layers and parameters, which are trained, and which statistics are frozen."""

import copy

import pytest
import torch
from torch import nn

from training.networks.layer_groups import (
    broadcast_rates,
    describe_groups,
    freeze,
    head_group,
    layer_groups,
    set_training,
)
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone


def classifier_of(arch: str, classes: int = 2, size: int = 32) -> Classifier:
    torch.manual_seed(0)
    body = Body(describe_backbone(arch))
    return Classifier(body, Head(count_features(body, size), classes))


@pytest.fixture(scope="module")
def resnet34() -> Classifier:
    return classifier_of("resnet34")


def test_resnet34_is_split_as_fast_ai_0_7_splits_it(resnet34: Classifier) -> None:
    groups = layer_groups(resnet34, 3, 0)
    assert [round(group.size / 1e6, 2) for group in groups] == [1.35, 19.94, 0.53]
    names = {id(parameter): name for name, parameter in resnet34.body.network.named_parameters()}
    first = {names[id(parameter)].split(".")[0] for parameter in groups[0].parameters}
    second = {names[id(parameter)].split(".")[0] for parameter in groups[1].parameters}
    assert first == {"conv1", "bn1", "layer1", "layer2"}
    assert second == {"layer3", "layer4"}


@pytest.mark.parametrize(
    "arch",
    ["resnet34", "tf_efficientnet_lite0", "test_resnet", "test_convnext", "mobilenetv3_small_050", "densenet121"],
)
def test_groups_hold_every_parameter_and_every_module_once(arch: str) -> None:
    classifier = classifier_of(arch)
    norms = [m for m in classifier.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for count in (2, 3, 4):
        groups = layer_groups(classifier, count, 0)
        assert len(groups) == count
        parameters = [id(parameter) for group in groups for parameter in group.parameters]
        assert sorted(parameters) == sorted(map(id, classifier.parameters()))
        modules = [id(module) for group in groups for module in group.modules]
        assert len(modules) == len(set(modules))
        assert {id(norm) for norm in norms} <= set(modules)
        assert groups[-1].parameters == list(classifier.head.parameters())


def test_more_groups_than_layers_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"groups is 9; this backbone has 5 layers, so at most 6"):
        layer_groups(classifier_of("test_resnet"), 9, 0)


def test_one_learning_rate_is_for_all_groups_and_a_wrong_number_shows_the_table(resnet34: Classifier) -> None:
    groups = layer_groups(resnet34, 3, 0)
    assert broadcast_rates([0.1], groups) == [0.1] * 3
    assert broadcast_rates([0.1], layer_groups(resnet34, 3, -1)) == [0.1]
    assert broadcast_rates([1e-4, 1e-3, 1e-2], layer_groups(resnet34, 3, 1)) == [1e-3, 1e-2]
    with pytest.raises(
        ValueError, match=r"(?s)lr has 2 learning rates; give one, or 3.*1,347,904.*19,936,768.*528,898"
    ):
        broadcast_rates([0.1, 0.2], groups)


def test_the_table_shows_trainable_groups_and_learning_rates(resnet34: Classifier) -> None:
    groups = layer_groups(resnet34, 3, 1)
    lines = describe_groups(groups, [1e-3, 1e-2]).splitlines()
    assert lines[1].split()[-1] == "no"
    assert lines[2].split()[-2:] == ["yes", "0.001"]
    assert lines[3].split()[-2:] == ["yes", "0.01"]


@pytest.mark.parametrize("first", [-1, 0, 1, 2])
def test_only_trainable_groups_change(first: int) -> None:
    classifier = classifier_of("test_resnet")
    groups = layer_groups(classifier, 3, first)
    freeze(groups)
    set_training(classifier, groups, freeze_bn=False)
    before = copy.deepcopy(classifier.state_dict())
    optimizer = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=0.1)
    loss = classifier(torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)).square().sum()
    loss.backward()
    optimizer.step()
    after = classifier.state_dict()
    frozen = groups[: first % 3]
    names = {id(tensor): name for name, tensor in classifier.state_dict(keep_vars=True).items()}
    still = {names[id(p)] for group in frozen for p in group.parameters}
    still |= {names[id(b)] for group in frozen for module in group.modules for b in module.buffers() if id(b) in names}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed.isdisjoint(still)
    for group in groups[first % 3 :]:
        assert changed & {names[id(parameter)] for parameter in group.parameters}
        norms = [m for m in group.modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert {names[id(norm.running_mean)] for norm in norms} <= changed


def test_freeze_bn_keeps_the_statistics_of_the_body() -> None:
    classifier = classifier_of("test_resnet")
    groups = layer_groups(classifier, 3, 0)
    freeze(groups)
    set_training(classifier, groups, freeze_bn=True)
    before = copy.deepcopy(classifier.state_dict())
    classifier(torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8))
    changed = {name for name, tensor in classifier.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_the_head_is_a_group() -> None:
    head = Head(8, 2)
    assert head_group(head).size == sum(parameter.numel() for parameter in head.parameters())
