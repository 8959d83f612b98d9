"""Grad-CAM (Selvaraju et al. 2017): the parts of an image that speak for the predicted class."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serving.image.preprocess import Preprocess
from training.data.images import LabelledImage, or_reason
from training.networks.model import Network, members

STRENGTH = 0.55
"""Opacity of the overlay where the map is highest."""


def overlays(network: Network, images: Sequence[LabelledImage], preprocess: Preprocess) -> list[Image.Image | None]:
    """Each image as the network sees it, with its map over it; None for an image that can no longer be read.

    Args:
        network: on the CPU, in eval mode; of an ensemble the maps are averaged.
    """
    return [
        None if isinstance(view, str) else _overlay(view, class_map(network, view))
        for view in (or_reason(lambda image=image: image.views(preprocess)[0]) for image in images)  # type: ignore[misc]
    ]


def class_map(network: Network, view_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The map of the predicted class, float32 `[h, w]`, 0 to 1: zero where nothing speaks for it.

    The gradient goes through the head only: pooling makes it one number for each channel and place.
    """
    batch = torch.from_numpy(view_HWC[None])
    found: list[NDArray[np.float32]] = []
    with torch.no_grad():
        predicted = int(network(batch)[0].argmax())
    for member in members(network):
        with torch.no_grad():
            maps = member.body.feature_maps(batch)
        maps = maps.detach().requires_grad_(True)
        logits = member.head(member.body.pooled(maps))
        (gradient,) = torch.autograd.grad(logits[0, predicted], maps)
        weights = gradient.mean((2, 3), keepdim=True)
        map_hw = torch.relu((weights * maps).sum(1))[0].detach().float().numpy()
        found.append(np.asarray(map_hw / max(float(map_hw.max()), 1e-9), np.float32))
    total_hw = np.sum(found, 0)
    return np.asarray(total_hw / max(float(total_hw.max()), 1e-9), np.float32)


def _overlay(view_HWC: NDArray[np.uint8], map_hw: NDArray[np.float32]) -> Image.Image:
    """Blue to red over a grey image."""
    height, width = view_HWC.shape[:2]
    smooth = Image.fromarray(map_hw).resize((width, height), Image.Resampling.BICUBIC)
    heat_HW = np.clip(np.asarray(smooth), 0, 1)
    colours_HWC = np.stack([heat_HW, 1 - np.abs(2 * heat_HW - 1), 1 - heat_HW], -1) * 255
    opacity_HW1 = STRENGTH * heat_HW[..., None]
    mixed = view_HWC * (1 - opacity_HW1) + colours_HWC * opacity_HW1
    return Image.fromarray(mixed.round().astype(np.uint8))
