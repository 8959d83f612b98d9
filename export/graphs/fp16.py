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
from torch.utils.hooks import RemovableHandle

from export.checks.checks import CheckError, ParityError
from training.console import progress, say
from training.networks.model import Classifier

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


def half(folded: Classifier, images_NHWC: Tensor, keep_float: Collection[str] = ()) -> Classifier:
    """A copy whose body computes in float16; normalisation, pooling and head stay float32: they cost next to nothing.

    Args:
        folded: from `fold_norms`.
        images_NHWC: uint8 `[N, crop, crop, 3]`, on which biases are corrected; no validation photos.
        keep_float: names of `blocks` that stay float32.
    """
    halved = copy.deepcopy(folded)
    network = halved.body.network
    kept = {module for name in keep_float for module in network.get_submodule(name).modules()}
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module not in kept]
    _correct_biases(halved, convolutions, images_NHWC)
    network.half()
    for name in keep_float:
        parent, _, child = name.rpartition(".")
        original = copy.deepcopy(folded.body.network.get_submodule(name))  # halved ones have lost their digits
        setattr(network.get_submodule(parent), child, _InFloat(original))
    halved.body.network = nn.Sequential(_ToHalf(), network, _ToFloat())
    return halved.eval()


def _correct_biases(classifier: Classifier, convolutions: list[nn.Conv2d], images_NHWC: Tensor) -> None:
    """Take out of each convolution's bias by how much float16 moves the mean of each of its channels.

    Rounded weights and biases move means, and the layers that follow add such moves up. They are measured on photos,
    front to back, each with the layers before it already rounded and corrected (Nagel et al. 2019, "Data-Free
    Quantization Through Weight Equalization and Bias Correction", section 4.2).
    """
    means: dict[nn.Module, Tensor] = {}

    def measure(convolution: nn.Module, inputs: tuple[Tensor, ...], output_NChw: Tensor) -> None:
        means[convolution] = output_NChw.mean((0, 2, 3))

    def correct(convolution: nn.Module, inputs: tuple[Tensor, ...], output_NChw: Tensor) -> Tensor:
        assert isinstance(convolution, nn.Conv2d)
        by_C = means[convolution] - output_NChw.mean((0, 2, 3))
        before_C = torch.zeros_like(by_C) if convolution.bias is None else convolution.bias
        bias_C = (before_C + by_C).half().float()
        convolution.bias = nn.Parameter(bias_C, requires_grad=False)
        return (output_NChw + (bias_C - before_C).view(-1, 1, 1)).half().float()

    with torch.no_grad():
        for hook in (measure, correct):
            handles = [convolution.register_forward_hook(hook) for convolution in convolutions]
            classifier(images_NHWC)
            for handle in handles:
                handle.remove()
            for convolution in convolutions:
                convolution.weight.copy_(convolution.weight.half().float())


def fold_norms(classifier: Classifier, image_1HWC: Tensor) -> Classifier:
    """A copy whose batch norms are folded, in float32, into the convolutions before them."""
    folded = copy.deepcopy(classifier)
    for convolution, norm in _pairs(folded, image_1HWC):
        _fold(convolution, norm)
    return folded


def _pairs(classifier: Classifier, image_1HWC: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes into a batch norm and nowhere before it, as one run shows."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = (module, output)  # the tensor is kept, so that its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    hooks: list[RemovableHandle] = []
    for module in classifier.body.network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before))
    with torch.no_grad():
        classifier(image_1HWC)
    for hook in hooks:
        hook.remove()
    return pairs


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move a batch norm's scale and shift into the convolution before it; what is left of it is the identity."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale_C = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        before_C = 0 if convolution.bias is None else convolution.bias
        convolution.weight.mul_(scale_C.view(-1, 1, 1, 1))
        bias = norm.bias + (before_C - norm.running_mean) * scale_C
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        norm.weight.fill_(1)
        norm.bias.zero_()
        norm.eps = 0.0


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
        gate: exports and verifies; returns what it found, or raises CheckError.

    Returns:
        What the gate returned, and the blocks left in float32 with their damage.

    Raises:
        CheckError: if it still fails with 8 blocks (or all but one) in float32.
    """
    folded = fold_norms(classifier, images_NHWC[:1])
    try:
        return gate(half(folded, images_NHWC)), []
    except ParityError as error:
        say(f"{error}; looking for the blocks that float16 damages")
        failure = error
    damaged = measure_half_damage(folded, images_NHWC)
    for count in KEPT:
        if count >= len(damaged):
            break
        kept = damaged[:count]
        try:
            found = gate(half(folded, images_NHWC, [block["layer"] for block in kept]))
        except ParityError as error:
            failure = error
            continue
        say(f"passed with {count} of {len(damaged)} blocks in float32: {', '.join(block['layer'] for block in kept)}")
        return found, kept
    raise CheckError(
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
