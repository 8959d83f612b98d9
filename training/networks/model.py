"""The classifier: normalisation, pretrained body, pooling and fast.ai's head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import log, log2
from typing import cast

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn

from serving.image.preprocess import Preprocess
from serving.image.resize import Interpolation


@dataclass(frozen=True)
class Backbone:
    """The input of a pretrained network, according to timm."""

    arch: str
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def preprocess_at(self, size: int | None) -> Preprocess:
        """The preprocessing for an input size, with the same margin in proportion; None is the backbone's own."""
        if size is None:
            return self.preprocess
        return replace(self.preprocess, crop=size, resize=round(size * self.preprocess.resize / self.preprocess.crop))


MIN_HEAD_WIDTH, MAX_HEAD_WIDTH = 16, 512
HEAD_PART = 0.025
"""Size of the head's first linear layer as a fraction of the body, at most."""

OTHER_BACKBONE = "choose a backbone that gives one feature map, such as resnet34, convnext_tiny or regnety_008"
_TAGS = {"resnet34": "resnet34.tv_in1k"}
"""The set of weights that a bare name means: for resnet34 torchvision's, as in the fast.ai course."""


def timm_name(arch: str) -> str:
    """timm's name of a backbone with its pretrained weights."""
    return _TAGS.get(arch, arch)


def describe_backbone(arch: str) -> Backbone:
    """The preprocessing that the pretrained network was trained with.

    Raises:
        ValueError: for a name that timm does not know, with similar ones.
    """
    if not timm.is_model(arch):
        near = get_close_matches(arch.partition(".")[0], timm.list_models(), n=5)
        raise ValueError(
            f"timm has no model {arch!r}" + (f"; similar: {', '.join(near)}" if near else "; see timm.list_models()")
        )
    config = timm.get_pretrained_cfg(timm_name(arch)) or PretrainedCfg(input_size=(3, 224, 224))
    crop = int(config.input_size[-1])
    interpolation: Interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    return Backbone(
        arch=arch,
        preprocess=Preprocess(crop=crop, resize=round(crop / config.crop_pct), interpolation=interpolation),
        mean=cast(tuple[float, float, float], tuple(config.mean)),
        std=cast(tuple[float, float, float], tuple(config.std)),
    )


def build_body(arch: str) -> nn.Module:
    """The backbone without pooling and classifier, with random weights: float32 `[N, 3, H, W]` -> `[N, C, h, w]`.

    The feature map is `[N, h, w, C]` if timm says so in the network's `output_fmt`.

    Raises:
        ValueError: if timm cannot build the backbone without its pooling.
    """
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0, global_pool="")
    except Exception as error:  # each family has its own way to reject the arguments
        raise ValueError(
            f"timm cannot build {arch} without its pooling ({error or type(error).__name__}); {OTHER_BACKBONE}"
        ) from error


class Body(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> features float32 `[N, 2C]`: normalise, body, then max and average pooling."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = build_body(backbone.arch)
        self.channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(backbone.std).view(1, 3, 1, 1)), persistent=False)

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return self.pooled(self.feature_maps(images_NHWC))

    def feature_maps(self, images_NHWC: Tensor) -> Tensor:
        """The maps before pooling, float32 `[N, C, h, w]`."""
        # Cast first: TensorRT takes uint8 as a network's input, but transposes no uint8.
        x_NCHW = images_NHWC.to(torch.float32).permute(0, 3, 1, 2)
        x_NCHW = (x_NCHW - cast(Tensor, self.mean)) * cast(Tensor, self.scale)
        maps_NChw: Tensor = self.network(x_NCHW)
        return maps_NChw.permute(0, 3, 1, 2) if self.channels_last else maps_NChw

    def pooled(self, maps_NChw: Tensor) -> Tensor:
        """Maximum, then mean of each channel, float32 `[N, 2C]`."""
        return torch.cat([maps_NChw.amax((2, 3)), maps_NChw.mean((2, 3))], 1)


class Head(nn.Sequential):
    """fast.ai's head: features `[N, 2C]` -> logits `[N, K]`; Kaiming-normal weights, zero biases."""

    def __init__(
        self, features: int, classes: int, dropout: Sequence[float] = (0.25, 0.5), *, width: int = MAX_HEAD_WIDTH
    ) -> None:
        super().__init__(
            nn.BatchNorm1d(features),
            nn.Dropout(dropout[0]),
            nn.Linear(features, width),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(width),
            nn.Dropout(dropout[1]),
            nn.Linear(width, classes),
        )
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)


def head_width(body: Body, features: int, classes: int) -> int:
    """Units of the head's hidden layer, where the recipe gives none: fast.ai's 512, in proportion to the body.

    On resnet34, for which fast.ai chose 512, the first linear layer has 2.5% of the body's weights. On a small body
    512 units would be a large part of the file and of the work, without more accuracy. So the width is the power of two
    that keeps this proportion, but no less than the number of classes.
    """
    part = HEAD_PART * sum(weight.numel() for weight in body.parameters()) / features
    enough = 1 << (classes - 1).bit_length()
    return min(max(1 << int(log2(part)), MIN_HEAD_WIDTH, enough), MAX_HEAD_WIDTH)


class MeanPredictions(nn.Module):
    """An ensemble: logits float32 `[N, K]` that are the logarithm of the members' mean probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        logarithms = torch.stack([torch.log_softmax(member(inputs), 1) for member in self.members])
        return torch.logsumexp(logarithms, 0) - log(len(self.members))


class Classifier(nn.Module):
    """uint8 RGB `[N, H, W, 3]` -> logits float32 `[N, K]`."""

    def __init__(self, body: Body, head: Head | MeanPredictions) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images_NHWC: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.body(images_NHWC)))


Network = Classifier | MeanPredictions
"""What can be deployed: one network, or an ensemble of whole ones."""


def members(network: Network) -> list[Classifier]:
    """The networks of an ensemble; a single network is its own only member."""
    if isinstance(network, Classifier):
        return [network]
    return [cast(Classifier, member) for member in network.members]


def network_like(backbone: Backbone, state: Mapping[str, Tensor]) -> Network:
    """A network of the shape that a state dict was saved from, with weights not yet loaded.

    Raises:
        ValueError: if the state is not one of a `Network`.
    """
    ends = (".0.weight", ".2.bias", ".6.bias")
    widths = {name: len(tensor) for name, tensor in state.items() if name.endswith(ends)}

    def head(prefix: str) -> Head:
        features, width, classes = (f"{prefix}{end}" for end in ends)
        try:
            return Head(widths[features], widths[classes], width=widths[width])
        except KeyError as error:
            raise ValueError(f"there is no {error.args[0]}") from error

    def count(prefix: str) -> int:
        return len({name.split(".")[prefix.count(".")] for name in state if name.startswith(prefix)})

    if many := count("members."):
        return MeanPredictions([Classifier(Body(backbone), head(f"members.{n}.head")) for n in range(many)])
    if many := count("head.members."):
        return Classifier(Body(backbone), MeanPredictions([head(f"head.members.{n}") for n in range(many)]))
    return Classifier(Body(backbone), head("head"))


def class_count(network: Network) -> int:
    """K, the number of classes."""
    last = [tensor for name, tensor in network.state_dict().items() if name.endswith(".6.bias")]
    return len(last[-1])


def count_features(body: Body, crop: int) -> int:
    """2C of a body, found by running it once, in eval mode, on a black image.

    Raises:
        ValueError: if the backbone does not give one feature map with as many channels as timm says; or not at
            this size.
    """
    network = body.eval().network
    black = torch.zeros(1, 3, crop, crop, device=cast(Tensor, body.mean).device)
    with torch.inference_mode():
        try:
            maps = network(black)
        except Exception as error:  # each family has its own way to reject a size
            raise ValueError(f"this backbone cannot evaluate an image of {crop} pixels: {error}") from error
    if not isinstance(maps, Tensor):
        raise ValueError(f"this backbone gives a {type(maps).__name__}, not one feature map; {OTHER_BACKBONE}")
    shape = list(maps.shape)
    if len(shape) != 4:
        what = "tokens [N, L, C]" if len(shape) == 3 else "an output"
        raise ValueError(f"this backbone gives {what} of shape {shape}, not a feature map; {OTHER_BACKBONE}")
    channels = shape[3 if body.channels_last else 1]
    # with a convolution in its head, as in MobileNetV3, the feature map is what that gives
    known = {getattr(network, name, None) for name in ("num_features", "head_hidden_size")} - {None}
    if channels not in known:
        raise ValueError(
            f"this backbone gives a feature map of shape {shape}, where timm says {' or '.join(map(str, known))} "
            f"channels; {OTHER_BACKBONE}"
        )
    return 2 * channels
