"""A trained classifier in; one whose body computes in float16 out, its most damaged blocks left in float32.

Normalisation before the body, pooling, head and softmax after it, and blocks that lose too much stay float32. Which
blocks those are is measured: float16 has 11 significant bits, and a block of a few weights with large gain can lose
more by that than all others together.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from export.gate import GateError
from training.model import Classifier
from training.progress import progress, say

KEPT = (1, 2, 3, 4, 6, 8)
"""How many blocks are left in float32, one try after the other."""


class _ToHalf(nn.Module):
    """float32 -> float16, same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float16)


class _ToFloat(nn.Module):
    """float16 -> float32, same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32)


class _InFloat(nn.Module):
    """A block that takes and gives float16 and computes in float32."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block.float()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x.to(torch.float32))
        return y.to(torch.float16)


def half(classifier: Classifier, keep_float: Collection[str] = ()) -> Classifier:
    """A copy whose body computes in float16; normalisation, pooling and head stay float32: they cost next to nothing.

    Args:
        keep_float: names of `blocks` that stay float32.
    """
    halved = copy.deepcopy(classifier)
    network = halved.body.network.half()
    for name in keep_float:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _InFloat(network.get_submodule(name)))
    halved.body.network = nn.Sequential(_ToHalf(), network, _ToFloat())
    return halved.eval()


def blocks(network: nn.Module) -> list[str]:
    """Names of a network's parts with weights: its children, and the children of those that are sequences."""
    names = []
    for name, child in network.named_children():
        inner = [f"{name}.{part}" for part, _ in child.named_children()] if type(child) is nn.Sequential else [name]
        names += [part for part in inner if list(network.get_submodule(part).parameters())]
    return names


def half_until_passed(
    classifier: Classifier, images_NHWC: Tensor, gate: Callable[[Classifier], dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Halve as much as the gate lets pass.

    Args:
        images_NHWC: uint8 `[N, crop, crop, 3]`, on which damage is measured; no validation photos.
        gate: exports and verifies; returns what it found, or raises GateError.

    Returns:
        What the gate returned, and the blocks left in float32 with their damage.

    Raises:
        GateError: if it still fails with 8 blocks (or all but one) in float32.
    """
    try:
        return gate(half(classifier)), []
    except GateError as error:
        say(f"{error}; looking for the blocks that float16 damages")
        failure = error
    damaged = measure_half_damage(classifier, images_NHWC)
    for count in KEPT:
        if count >= len(damaged):
            break
        kept = damaged[:count]
        try:
            found = gate(half(classifier, [block["layer"] for block in kept]))
        except GateError as error:
            failure = error
            continue
        say(f"passed with {count} of {len(damaged)} blocks in float32: {', '.join(block['layer'] for block in kept)}")
        return found, kept
    raise GateError(
        f"{failure}. That is with up to {min(KEPT[-1], len(damaged) - 1)} of {len(damaged)} blocks in float32: relax "
        "--max-diff-fp16, or export without fp16"
    )


def measure_half_damage(classifier: Classifier, images_NHWC: Tensor) -> list[dict[str, Any]]:
    """Blocks and what rounding the weights of each alone to float16 does, the most damaged first.

    Damage is the mean absolute change of a logit.
    """
    names = blocks(classifier.body.network)
    rounded = copy.deepcopy(classifier)
    damaged = []
    with torch.inference_mode(), progress("measuring damage", "blocks") as on_progress:
        expected_NK = classifier(images_NHWC)
        for done, name in enumerate(names, 1):
            block = rounded.body.network.get_submodule(name)
            kept = [parameter.clone() for parameter in block.parameters()]
            for parameter in block.parameters():
                parameter.copy_(parameter.half().float())
            damaged.append({"layer": name, "damage": float((rounded(images_NHWC) - expected_NK).abs().mean())})
            for parameter, original in zip(block.parameters(), kept, strict=True):
                parameter.copy_(original)
            on_progress(done, len(names))
    return sorted(damaged, key=lambda block: -block["damage"])
