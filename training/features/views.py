"""A trained network and images in; its logits for each of the fixed views out."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.images import LabelledImage, Skipped
from training.data.sources import ordered_batches
from training.features.activations import Activations
from training.features.lookup import ActivationProvider
from training.networks.model import Classifier, Network, class_count, members


def view_logits(
    network: Network, images: Sequence[LabelledImage], *, views: int, lookup: Callable[[Classifier], ActivationProvider]
) -> tuple[NDArray[np.float32], list[LabelledImage], list[Skipped]]:
    """Look at images as serving does.

    Args:
        lookup: where the activations of a member's body come from.

    Returns:
        Logits float32 `[views, N, K]` of the images that could be read, in order; those images; the others.
    """
    per_member = []
    for classifier in members(network):
        activations = lookup(classifier).activations(images, views=views, title="looking at images")
        per_member.append(_head_logits(classifier.head, activations).reshape(-1, views, class_count(network)))
    if len(per_member) == 1:
        logits_NVK = per_member[0]
    else:
        stacked = torch.log_softmax(torch.from_numpy(np.stack(per_member)), 3)
        logits_NVK = (torch.logsumexp(stacked, 0) - np.log(len(per_member))).numpy()
    return np.ascontiguousarray(logits_NVK.transpose(1, 0, 2)), activations.images, activations.skipped


def _head_logits(head: nn.Module, activations: Activations) -> NDArray[np.float32]:
    device = next(head.parameters()).device
    head.eval()
    with torch.inference_mode():
        parts = [
            head(torch.from_numpy(activations.features(rows)).to(device)).float().cpu().numpy()
            for rows in ordered_batches(np.arange(len(activations)))
        ]
    return np.concatenate(parts)
