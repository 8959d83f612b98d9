"""Layer groups of a classifier: which are trained, at which learning rate, and which batch norms are frozen.

The body's layers, in the order in which timm names them, are cut into groups of equally many, earlier groups getting
the remainder; the head is the last group. For resnet34 and three groups that is fast.ai 0.7's split: stem, layer1,
layer2; layer3, layer4; head.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from timm.models._manipulate import group_with_matcher
from torch import nn

from training.networks.model import Classifier

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share a learning rate."""

    layers: str
    """Their names, for display."""
    parameters: list[nn.Parameter]
    modules: list[nn.Module]
    """Modules without children."""
    trained: bool = True

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters)


def layer_groups(classifier: Classifier, count: int, first: int) -> list[LayerGroup]:
    """Split a classifier into `count` groups, of which those from `first` on are trained: -1 is the head alone, 0 all.

    Raises:
        ValueError: if the body has fewer layers than groups are asked for.
    """
    network = classifier.body.network
    names = _layers(network)
    if count - 1 > len(names):
        raise ValueError(
            f"groups is {count}; this backbone has {len(names)} layers, so at most {len(names) + 1} groups, the head "
            "included"
        )
    groups = []
    claimed: set[str] = set()
    for number, part in enumerate(np.array_split(np.arange(len(names)), count - 1)):
        inside = [name for index in part for name in names[index]]
        prefixes = {name.rpartition(".")[0] for name in inside}
        modules = [module for name, module in network.named_modules() if name in prefixes]
        claimed |= prefixes
        parameters = [network.get_parameter(name) for name in inside]
        groups.append(LayerGroup(_name(inside), parameters, modules, trained=number >= first % count))
    # Dropouts and batch norms without weights are in no group by name: they join the body's last group.
    groups[-1].modules.extend(
        m for name, m in network.named_modules() if name not in claimed and not list(m.children())
    )
    return [*groups, head_group(classifier.head)]


def head_group(head: nn.Module) -> LayerGroup:
    """The head as a layer group, which is trained."""
    leaves = [module for module in head.modules() if not list(module.children())]
    return LayerGroup("head", list(head.parameters()), leaves)


def freeze(groups: Sequence[LayerGroup]) -> None:
    """Make the parameters of trained groups trainable, and freeze the others."""
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(group.trained)
            if not group.trained:
                parameter.grad = None


def set_training(network: nn.Module, groups: Sequence[LayerGroup], *, freeze_bn: bool) -> None:
    """Put a network into training mode, and frozen groups into eval mode, which keeps their batch-norm statistics.

    Args:
        freeze_bn: keep the statistics of the body's batch norms in trained groups, too.
    """
    network.train()
    for group in groups:
        for module in group.modules:
            if not group.trained or (freeze_bn and group is not groups[-1] and isinstance(module, _BATCH_NORM)):
                module.eval()


def broadcast_rates(rates: Sequence[float], groups: Sequence[LayerGroup]) -> list[float]:
    """One learning rate for each trained group: a single one is for all, otherwise there is one for every group.

    Raises:
        ValueError: for another number of learning rates, with the groups.
    """
    if len(rates) not in (1, len(groups)):
        raise ValueError(
            f"lr has {len(rates)} learning rates; give one, or {len(groups)}, one for each layer group:\n"
            + describe_groups(groups)
        )
    every = rates if len(rates) > 1 else [rates[0]] * len(groups)
    return [rate for rate, group in zip(every, groups, strict=True) if group.trained]


def describe_groups(groups: Sequence[LayerGroup], rates: Sequence[float] = ()) -> str:
    """The groups as a text table."""
    rows = group_rows(groups, rates)
    width = max(len(layers) for _, layers, *_ in rows)
    return "\n".join(
        f"  {number:>5}  {layers:<{width}}  {parameters:>11}  {trainable:<9}  {rate}".rstrip()
        for number, layers, parameters, trainable, rate in rows
    )


def group_rows(groups: Sequence[LayerGroup], rates: Sequence[float]) -> list[tuple[str, str, str, str, str]]:
    """The table's cells, the header first. `rates` are those of the trained groups."""
    rows = [("group", "layers", "parameters", "trainable", "learning rate" if rates else "")]
    waiting = iter(rates)
    for number, group in enumerate(groups, 1):
        rate = f"{next(waiting):.3g}" if rates and group.trained else ""
        rows.append((str(number), group.layers, f"{group.size:,}", "yes" if group.trained else "no", rate))
    return rows


def _layers(network: nn.Module) -> list[list[str]]:
    """The parameters of each layer, by timm's own division if the network has one, otherwise by name."""
    with suppress(AttributeError, AssertionError):  # some networks have no such method, others only a finer division
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
        return list(group_with_matcher(network.named_parameters(), matcher).values())
    layers: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        layers.setdefault(_layer(name), []).append(name)
    return list(layers.values())


def _layer(parameter: str) -> str:
    """The layer of a parameter: 'conv1' of 'conv1.weight', 'layer1.0' of 'layer1.0.bn1.bias'."""
    first, *rest = parameter.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() and len(rest) > 1 else first


def _name(parameters: Sequence[str]) -> str:
    """The layers' names without those of their sublayers: 'conv1, bn1, layer1', 'blocks.0, blocks.1'."""
    words = list(dict.fromkeys(map(_layer, parameters)))
    return ", ".join(words) if len(words) <= 4 else f"{words[0]}, {words[1]} … {words[-1]}"
