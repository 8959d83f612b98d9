"""Aligns pairs of images, to find out whether one is a copy of the other: resized, recompressed, mirrored or cropped.

Lucas and Kanade's registration (1981) by Gauss-Newton steps, from coarse to fine, on grey thumbnails: a scale and a
shift along each axis, and a gain and an offset of brightness. Most pairs of different images are rejected on the
coarsest level, which costs little.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MAX_CROP = 0.25
"""A copy shows at least 1 - MAX_CROP of the other image, along each axis."""
STRETCH = 1.02
"""Beyond the other image's border, for the borders that resizing moves by part of a pixel."""
BATCH = 2048
"""Pairs that are aligned together."""
DETAIL_SIDE = 128
STARTS = ((1.0, 0.0), (0.9, -0.1), (0.9, 0.0), (0.9, 0.1))
"""Scale and shift along an axis from which the alignment may start: the whole image, or nine tenths of it."""
MIN_START = 0.5
"""Minimum correlation at the best start, on the coarsest level."""


@dataclass(frozen=True)
class Level:
    """A resolution, and what a pair must reach there."""

    side: int
    """Side of the images in pixels."""
    steps: int
    """Number of Gauss-Newton steps."""
    least: float
    """Correlation."""


COARSE = (Level(8, 4, 0.8), Level(16, 4, 0.8), Level(32, 4, 0.75))
FINE = (Level(16, 4, 0.75), Level(32, 4, 0.75), Level(64, 3, 0.75), Level(DETAIL_SIDE, 3, 0.0))
ALIKE = 0.95
"""Thumbnails that correlate so much need to agree less in detail: a much smaller copy has lost its own."""
MIN_DETAIL, MIN_DETAIL_OTHERWISE = 0.35, 0.65
"""Correlation of what a blur takes away, at DETAIL_SIDE pixels."""


def copies(thumbnails_NSS: NDArray[np.uint8], pairs_P2: NDArray[np.int64]) -> NDArray[np.float32]:
    """How well one image of each pair can be aligned with the other or its mirror image.

    Args:
        thumbnails_NSS: luma uint8 `[N, 32, 32]`.
        pairs_P2: int64 `[P, 2]`.

    Returns:
        The correlation of the aligned thumbnails, float32 `[P]`; 0 for those that are no copies.
    """
    found_P = np.zeros(len(pairs_P2), np.float32)
    for start in range(0, len(pairs_P2), BATCH):
        fixed, moving = _both_ways(thumbnails_NSS, pairs_P2[start : start + BATCH])
        found = _align(fixed, moving, COARSE)[0]
        found_P[start : start + BATCH] = found.view(4, -1).amax(0).numpy()
    return found_P


def detail(luma_NSS: NDArray[np.uint8], pairs_P2: NDArray[np.int64]) -> NDArray[np.float32]:
    """How well the fine detail of aligned pairs agrees: the correlation of what a blur takes away, float32 `[P]`.

    Different images of the same kind, such as drawings or products on white, are alike as thumbnails only.

    Args:
        luma_NSS: uint8 `[N, DETAIL_SIDE, DETAIL_SIDE]`.
        pairs_P2: int64 `[P, 2]`.
    """
    if not len(pairs_P2):
        return np.zeros(0, np.float32)
    fixed, moving = _both_ways(luma_NSS, pairs_P2)
    correlation, warp = _align(fixed, moving, FINE)
    aligned = F.grid_sample(moving[:, None], _grid(warp, DETAIL_SIDE), padding_mode="border", align_corners=False)
    both = torch.cat([fixed[:, None], aligned], 1)
    sharp = (both - F.avg_pool2d(F.pad(both, (3, 3, 3, 3), mode="replicate"), 7, 1)).flatten(2)
    agreement = torch.where(correlation > 0, _correlation(sharp[:, 0], sharp[:, 1]), 0.0)
    found: NDArray[np.float32] = agreement.view(4, -1).amax(0).numpy()
    return found


def are_copies(correlation_P: NDArray[np.float32], detail_P: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Decide from what `copies` and `detail` return, bool `[P]`."""
    enough: NDArray[np.bool_] = detail_P >= np.where(correlation_P >= ALIKE, MIN_DETAIL, MIN_DETAIL_OTHERWISE)
    return enough


def _both_ways(images_NSS: NDArray[np.uint8], pairs_P2: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Pairs to align, float32 `[4 P, S, S]`: either image may be the crop or the mirror image."""
    one, other = (torch.from_numpy(images_NSS[pairs_P2[:, side]]).float() for side in (0, 1))
    mirrored = other.flip(2)
    return torch.cat([one, one, other, mirrored]), torch.cat([other, mirrored, one, one])


def _align(fixed_BSS: Tensor, moving_BSS: Tensor, levels: tuple[Level, ...]) -> tuple[Tensor, Tensor]:
    """The correlation `[B]` on the last level, 0 where a level was not passed, and the warp `[B, 4]`.

    A warp is scale and shift along x, then along y: x of `moving` is scale * x + shift, with x from -1 to 1.
    """
    rows = torch.arange(len(fixed_BSS))
    best, warps = torch.zeros(len(rows)), torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(len(rows), 1)
    for number, level in enumerate(levels):
        fixed, moving = (F.adaptive_avg_pool2d(each[rows, None], level.side) for each in (fixed_BSS, moving_BSS))
        if number == 0:
            correlation, warps = _best_start(fixed, moving)
            similar = correlation >= MIN_START
            rows, fixed, moving = rows[similar], fixed[similar], moving[similar]
        correlation, warp = _register(fixed, moving, warps[rows], level.steps)
        good = correlation >= level.least
        best.zero_()
        rows = rows[good]
        best[rows], warps[rows] = correlation[good], warp[good]
    return best, warps


def _best_start(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """The start, whole image or crop at a border, that is most like `fixed`: correlation and warp."""
    target = fixed.flatten(1)
    best, best_warp = torch.full((len(fixed),), -1.0), torch.zeros(len(fixed), 4)
    for x, y in product(STARTS, STARTS):
        warp = torch.tensor([*x, *y])
        places = _grid(warp[None], fixed.shape[-1]).expand(len(fixed), -1, -1, -1)
        image = F.grid_sample(moving, places, padding_mode="border", align_corners=False).flatten(1)
        correlation = _correlation(target, image)
        better = correlation > best
        best = torch.where(better, correlation, best)
        best_warp = torch.where(better[:, None], warp, best_warp)
    return best, best_warp


def _register(fixed: Tensor, moving: Tensor, warp: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Align `moving` with `fixed`, both `[B, 1, s, s]`: the best correlation `[B]` and its warp."""
    count, side = len(fixed), fixed.shape[-1]
    if not count:
        return torch.zeros(0), warp
    x, y = (part.reshape(1, -1) for part in _grid(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), side)[0].unbind(-1))
    target = fixed.flatten(1)
    # derivatives are per unit of x or y, of which a pixel is 2 / side
    across = F.pad(moving, (1, 1, 0, 0), mode="replicate").diff(dim=3) * side / 4
    down = F.pad(moving, (0, 0, 1, 1), mode="replicate").diff(dim=2) * side / 4
    stack = torch.cat([moving, across[..., 1:] + across[..., :-1], down[..., 1:, :] + down[..., :-1, :]], 1)
    best, best_warp = torch.full((count,), -1.0), warp
    for step in range(steps + 1):
        sampled = F.grid_sample(stack, _grid(warp, side), padding_mode="border", align_corners=False)
        image, by_x, by_y = sampled.flatten(2).unbind(1)
        correlation = _correlation(target, image)
        better = correlation > best
        best = torch.where(better, correlation, best)
        best_warp = torch.where(better[:, None], warp, best_warp)
        if step == steps:
            break
        # target = offset + gain * (image + derivatives * change of the warp), in the least squares
        columns = torch.stack([torch.ones_like(image), image, by_x * x, by_x, by_y * y, by_y], 1)
        gram = columns @ columns.transpose(1, 2)
        scale = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-6).sqrt()
        gram = gram / (scale[:, :, None] * scale[:, None]) + 1e-3 * torch.eye(6)
        solution = torch.linalg.solve(gram, (columns @ target[:, :, None]) / scale[:, :, None])[..., 0] / scale
        gain = solution[:, 1:2]
        change = torch.where(gain > 0.2, solution[:, 2:] / gain.clamp_min(0.2), 0.0)
        warp = _bounded(warp + change.clamp(-0.2, 0.2))
    return best, best_warp


def _grid(warp_B4: Tensor, side: int) -> Tensor:
    """Position of each pixel of the fixed image in the moving one, `[B, side, side, 2]`, from -1 to 1."""
    line = (torch.arange(side) + 0.5) * 2 / side - 1
    x = warp_B4[:, 0, None] * line + warp_B4[:, 1, None]
    y = warp_B4[:, 2, None] * line + warp_B4[:, 3, None]
    return torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)


def _bounded(warp_B4: Tensor) -> Tensor:
    """Keep the window inside the moving image, and at least 1 - MAX_CROP of it."""
    parts = []
    for axis in (0, 2):
        scale = warp_B4[:, axis].clamp(1 - MAX_CROP, STRETCH)
        room = STRETCH - scale
        parts += [scale, torch.maximum(torch.minimum(warp_B4[:, axis + 1], room), -room)]
    return torch.stack(parts, 1)


def _correlation(one_BP: Tensor, other_BP: Tensor) -> Tensor:
    """Pearson's, `[B]`; 0 where an image is uniform."""
    one, other = one_BP - one_BP.mean(1, keepdim=True), other_BP - other_BP.mean(1, keepdim=True)
    norms: Tensor = one.norm(dim=1) * other.norm(dim=1)
    return (one * other).sum(1) / norms.clamp_min(1e-3)
