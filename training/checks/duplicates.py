"""Finds near duplicates: images that are resized, recompressed, mirrored or slightly cropped copies of others.

Candidates are each image's nearest neighbours by the cosine of its activations, found in blocks, so that memory grows
with the images and not with their pairs. Then the pixels decide: a candidate counts if its thumbnail can be aligned
with the other's, and the fine detail of both agrees as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import decode
from training.checks.alignment import DETAIL_SIDE, are_copies, copies, detail
from training.data.images import LabelledImage, or_reason

NEIGHBOURS = 5
"""Candidates for each image. In a large group of copies each is near to others, so that the group holds together."""
ROWS, COLUMNS = 2048, 16_384
"""Size of a block of similarities."""
CHUNK = 256
"""Pairs whose detail is compared together."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are near duplicates of one another."""

    members: list[int]
    """Indices of the images, ascending; at least two."""
    similarity: float
    """The lowest correlation of the aligned thumbnails among the pairs that hold the group together; 1 if all are
    identical files."""


def find_duplicates(
    images: Sequence[LabelledImage],
    projected_ND: NDArray[np.float16],
    thumbnails_NSS: NDArray[np.uint8],
    on_progress: Callable[[int, int], None],
) -> list[DuplicateGroup]:
    """Groups of near duplicates, the images of a group in the given order.

    Args:
        projected_ND: as `project` gives them.
        thumbnails_NSS: luma of each image.
        on_progress: called with (images compared, images in all).
    """
    exact_P2 = _same_content(images)
    neighbours_NK = nearest(projected_ND, NEIGHBOURS, on_progress)
    pairs_P2 = _pairs(neighbours_NK)
    different = np.array([images[one].sha256 != images[other].sha256 for one, other in pairs_P2], bool)
    pairs_P2 = pairs_P2[different] if len(pairs_P2) else pairs_P2
    correlation_P = copies(thumbnails_NSS, pairs_P2)
    likely = correlation_P > 0
    pairs_P2, correlation_P = pairs_P2[likely], correlation_P[likely]
    agree = are_copies(correlation_P, _details(images, pairs_P2))
    pairs_P2, correlation_P = pairs_P2[agree], correlation_P[agree]
    every = np.concatenate([exact_P2, pairs_P2])
    similarity = np.concatenate([np.ones(len(exact_P2), np.float32), correlation_P])
    return _groups(every, similarity)


def nearest(
    projected_ND: NDArray[np.float16], count: int, on_progress: Callable[[int, int], None]
) -> NDArray[np.int64]:
    """The nearest others of each row by cosine, int64 `[N, min(count, N - 1)]`, in blocks of
    similarities: N x N of them are never in memory.
    """
    total = len(projected_ND)
    count = min(count, total - 1)
    found_NK = np.empty((total, max(count, 0)), np.int64)
    if count < 1:
        return found_NK
    rows = torch.from_numpy(projected_ND)
    for start in range(0, total, ROWS):
        block = _unit(rows[start : start + ROWS])
        best = torch.full((len(block), 0), 0.0)
        places = torch.zeros((len(block), 0), dtype=torch.int64)
        for left in range(0, total, COLUMNS):
            similarity = block @ _unit(rows[left : left + COLUMNS]).T
            own = torch.arange(start, start + len(block)) - left
            inside = (own >= 0) & (own < similarity.shape[1])
            similarity[inside.nonzero()[:, 0], own[inside]] = -2.0
            values, columns = similarity.topk(min(count, similarity.shape[1]), 1)
            best, order = torch.cat([best, values], 1).topk(min(count, best.shape[1] + values.shape[1]), 1)
            places = torch.cat([places, columns + left], 1).gather(1, order)
        found_NK[start : start + len(block)] = places.numpy()
        on_progress(start + len(block), total)
    return found_NK


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=1)


def _pairs(neighbours_NK: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each pair once, int64 `[P, 2]`, the smaller index first."""
    total, count = neighbours_NK.shape
    pairs = np.stack([np.repeat(np.arange(total), count), neighbours_NK.ravel()], 1)
    return np.unique(np.sort(pairs, 1), axis=0)


def _same_content(images: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """Pairs of an image with the first of the same content, int64 `[P, 2]`."""
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(image.sha256, at), at) for at, image in enumerate(images)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _details(images: Sequence[LabelledImage], pairs_P2: NDArray[np.int64]) -> NDArray[np.float32]:
    """How well the fine detail of the pairs agrees, float32 `[P]`; the files are read again."""
    found_P = np.zeros(len(pairs_P2), np.float32)
    for start in range(0, len(pairs_P2), CHUNK):
        chunk = pairs_P2[start : start + CHUNK]
        needed = np.unique(chunk)
        read = [or_reason(lambda image=images[at]: _luma(image)) for at in needed]  # type: ignore[misc]
        known = np.array([not isinstance(luma, str) for luma in read])
        luma_MSS = np.stack([np.zeros((DETAIL_SIDE, DETAIL_SIDE), np.uint8) if isinstance(e, str) else e for e in read])
        places = np.searchsorted(needed, chunk)
        found_P[start : start + CHUNK] = np.where(known[places].all(1), detail(luma_MSS, places), 0.0)
    return found_P


def _luma(image: LabelledImage) -> NDArray[np.uint8]:
    pixels_HWC = decode(image.read(), min_side=DETAIL_SIDE, limits=image.limits)
    grey = Image.fromarray(pixels_HWC).convert("L").resize((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(grey)


def _groups(pairs_P2: NDArray[np.int64], similarity_P: NDArray[np.float32]) -> list[DuplicateGroup]:
    """Connected components, by their first image."""
    parent: dict[int, int] = {}

    def root(at: int) -> int:
        parent.setdefault(at, at)
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for one, other in pairs_P2.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    lowest: dict[int, float] = {}
    for at in sorted(parent):
        members.setdefault(root(at), []).append(at)
    for (one, _), similarity in zip(pairs_P2.tolist(), similarity_P.tolist(), strict=True):
        lowest[root(one)] = min(lowest.get(root(one), 1.0), similarity)
    return [DuplicateGroup(group, lowest[first]) for first, group in members.items()]
