"""fp16: a copy of a trained classifier whose body computes in float16, with the most sensitive blocks left in float32.

The normalisation before the body, and pooling, head and softmax after it, stay float32. Which blocks are sensitive is
measured: float16 has 11 significant bits, and a block of a few weights with large gain can lose more by that than all
others together.

ONNX Runtime's `convert_float_to_float16` is not used because it corrects no biases: with tf_efficientnet_lite0 and 300
images of cats and dogs, its probabilities differ from fp32 by up to 6.9e-3 and these by up to 2.2e-3 (files of 7.1 MB).
"""

import copy
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from training.console import progress
from training.networks.model import Classifier


class _ComputedIn(nn.Module):
    """A block that computes in one type, whatever the type of its input; its output has that type too."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.block = block.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x.to(self.dtype))
        return y


def to_fp16(folded: Classifier, images_NHWC: Tensor, keep_float: Collection[str] = ()) -> Classifier:
    """A copy whose body computes in float16; normalisation, pooling and head stay float32: they cost little time.

    Args:
        folded: from `fold_norms`.
        images_NHWC: uint8 `[N, crop, crop, 3]`, on which biases are corrected; no validation images.
        keep_float: names of `blocks` that stay float32.
    """
    converted = copy.deepcopy(folded)
    network = converted.body.network
    kept = {module for name in keep_float for module in network.get_submodule(name).modules()}
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module not in kept]
    _correct_biases(converted, convolutions, images_NHWC)
    network.half()
    for name in blocks(network) if keep_float else ():
        parent, _, child = name.rpartition(".")
        block, dtype = network.get_submodule(name), torch.float16
        if name in keep_float:  # that of `network` is rounded already
            block, dtype = copy.deepcopy(folded.body.network.get_submodule(name)), torch.float32
        setattr(network.get_submodule(parent), child, _ComputedIn(block, dtype))
    before, behind = (_ComputedIn(nn.Identity(), dtype) for dtype in (torch.float16, torch.float32))
    converted.body.network = nn.Sequential(before, network, behind)
    return converted.eval()


def _correct_biases(classifier: Classifier, convolutions: list[nn.Conv2d], images_NHWC: Tensor) -> None:
    """Subtract from each convolution's bias what rounding to float16 adds to the mean of each of its channels.

    Rounded weights and biases shift means, and the shifts of successive layers add up. They are measured on images,
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
            with ExitStack() as hooks:
                for convolution in convolutions:
                    hooks.enter_context(convolution.register_forward_hook(hook))
                classifier(images_NHWC)
            for convolution in convolutions:
                convolution.weight.copy_(convolution.weight.half().float())


def fold_norms(classifier: Classifier, image_1HWC: Tensor) -> Classifier:
    """A copy whose batch norms are folded, in float32, into the convolutions before them."""
    folded = copy.deepcopy(classifier)
    for convolution, norm in _pairs(folded, image_1HWC):
        _fold(convolution, norm)
    return folded


def _pairs(classifier: Classifier, image_1HWC: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output is the input of a batch norm, found by one forward pass."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = (module, output)  # the tensor is kept, so that its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    with ExitStack() as hooks, torch.no_grad():
        for module in classifier.body.network.modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_hook(after))
            elif isinstance(module, nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_pre_hook(before))
        classifier(image_1HWC)
    return pairs


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move a batch norm's scale and shift into the convolution before it; the batch norm becomes the identity."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    of_norm = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *of_norm)
    norm.reset_parameters()
    norm.eps = 0.0


def blocks(network: nn.Module) -> list[str]:
    """Names of a network's parts with weights: its children, and the children of those that are sequences or lists."""
    names = []
    for name, child in network.named_children():
        inner = (
            [f"{name}.{part}" for part, _ in child.named_children()]
            if type(child) in (nn.Sequential, nn.ModuleList)
            else [name]
        )
        names += [part for part in inner if list(network.get_submodule(part).parameters())]
    return names


def find_overflows(folded: Classifier, images_NHWC: Tensor, known: Mapping[str, str], *, most: int) -> dict[str, str]:
    """The blocks in which float16 overflows, each with the first layer that does.

    A block that has weights, or reads or makes values, beyond float16's range is computed in float32, including its
    output. So if that output is beyond the range, the next block is found too.

    Args:
        folded: from `fold_norms`.
        images_NHWC: uint8 `[N, crop, crop, 3]`.
        known: what was found with other images; the result includes it.
        most: largest number of blocks.

    Raises:
        ValueError: naming the layer, if there are more blocks.
    """
    found = dict(known)
    while overflow := _first_overflow(folded, images_NHWC, found):
        block, layer = overflow
        if len(found) == most:
            raise ValueError(
                f"layer {layer} overflows: its values exceed float16's largest, 65,504, as do those of {most} blocks "
                "before it; export without fp16"
            )
        found[block] = layer
    return found


def _first_overflow(folded: Classifier, images_NHWC: Tensor, keep_float: Collection[str]) -> tuple[str, str] | None:
    """The first layer, in order of computation, that float16 makes infinite, and its block; weights come first.

    Layers outside blocks have no weights and compute in the type of their input.
    """
    network = folded.body.network
    for block in blocks(network):
        for name, weight in network.get_submodule(block).named_parameters(prefix=block):
            if block not in keep_float and not weight.half().isfinite().all():
                return block, name.rpartition(".")[0]
    overflows: list[tuple[str, str]] = []

    def rounded(block: str, layer: str, x: object) -> object:
        if not isinstance(x, Tensor):
            return x
        half = x.half().float()
        if not half.isfinite().all():
            overflows.append((block, layer))
        return half

    def read(block: str, module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(rounded(block, block, x) for x in inputs)

    def made(block: str, layer: str, module: nn.Module, inputs: object, output: object) -> object:
        return rounded(block, layer, output)

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks(network):
            if block not in keep_float:
                whole = network.get_submodule(block)
                hooks.enter_context(whole.register_forward_pre_hook(partial(read, block)))
                for inner, module in whole.named_modules():
                    layer = f"{block}.{inner}" if inner else block
                    hooks.enter_context(module.register_forward_hook(partial(made, block, layer)))
        folded(images_NHWC)
    return overflows[0] if overflows else None


def measure_fp16_sensitivity(folded: Classifier, images_NHWC: Tensor) -> dict[str, float]:
    """Sensitivity of each block to rounding its weights to float16, the most sensitive first.

    It is the mean absolute change of a logit.

    Args:
        folded: from `fold_norms`.
        images_NHWC: uint8 `[N, crop, crop, 3]`; no validation images.
    """
    names = blocks(folded.body.network)
    sensitivities = {}
    with torch.inference_mode(), progress("measuring sensitivity", "blocks") as on_progress:
        expected_NK = folded(images_NHWC)
        for done, name in enumerate(names, 1):
            rounded = copy.deepcopy(folded)
            for parameter in rounded.body.network.get_submodule(name).parameters():
                parameter.copy_(parameter.half().float())
            sensitivities[name] = float((rounded(images_NHWC) - expected_NK).abs().mean())
            on_progress(done, len(names))
    return dict(sorted(sensitivities.items(), key=lambda item: -item[1]))
