"""Activations projected to a few hundred dimensions, so that those of a million images fit into memory."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.features.activations import Activations

DIMENSIONS = 256
SAMPLE = 10_000
"""Images that the projection is fitted on."""
BLOCK = 4096
"""Images read from the disk together."""


def project(parts: list[Activations]) -> NDArray[np.float16]:
    """The principal components of the standardised activations of each image's first view.

    Args:
        parts: whose images follow one another.

    Returns:
        float16 `[N, d]` with d of at most `DIMENSIONS`, the mean square of a row about 1: 512 bytes an image.
    """
    counts = [len(part.images) for part in parts]
    total = sum(counts)
    chosen = np.sort(np.random.default_rng(0).permutation(total)[:SAMPLE])
    sample = torch.from_numpy(np.concatenate(list(_blocks(parts, chosen))))
    mean, spread = sample.mean(0), sample.std(0).clamp_min(1e-6) if total > 1 else torch.ones(sample.shape[1])
    sample = (sample - mean) / spread
    basis: Tensor | None = None
    scale = 1.0
    if min(sample.shape) > DIMENSIONS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, values, basis = torch.svd_lowrank(sample, q=DIMENSIONS, niter=2)
        scale = float((values**2).sum() / len(sample) / DIMENSIONS) ** 0.5
    projected_ND = np.empty((total, sample.shape[1] if basis is None else DIMENSIONS), np.float16)
    at = 0
    for block in _blocks(parts, np.arange(total)):
        rows = (torch.from_numpy(block) - mean) / spread
        rows = rows if basis is None else rows @ basis / scale
        projected_ND[at : at + len(block)] = rows.clamp(-1e4, 1e4).numpy()
        at += len(block)
    return projected_ND


def _blocks(parts: list[Activations], chosen: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Activations of view 0 of the chosen images, ascending, in blocks."""
    first = 0
    for part in parts:
        views = part.row_of_NV.shape[1]
        inside = chosen[(chosen >= first) & (chosen < first + len(part.images))] - first
        for start in range(0, len(inside), BLOCK):
            yield part.features(inside[start : start + BLOCK] * views)
        first += len(part.images)
