"""The body's activations for images, computed once and kept in a store on disk.

The store's folder is named by the weights and the preprocessing that they depend on; within it a key stands for an
image's content and the view of it. So only a changed image is computed again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serving.image.decode import OWN_IMAGE_LIMITS
from serving.image.folders import Skipped
from serving.image.preprocess import Preprocess
from serving.image.views import VIEWS_VERSION
from training.data.images import LabelledImage, labels_of
from training.data.sources import Batch, Rows, Source


@dataclass(frozen=True)
class Work:
    """What was computed, and how long it took."""

    engine: str
    """What computed the activations, for display."""
    views: int
    """Rows that were computed: one for each view of an image."""
    seconds: float
    """Time for decoding, computing and storing."""
    prepare_s: float
    """Time for preparing the engine, once."""

    @property
    def rate(self) -> float:
        """Views per second."""
        return self.views / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Activations:
    """Activations of N images, V views each. An example is one view: number i is image i // V, view i % V."""

    images: list[LabelledImage]
    """Images that could be decoded, in the order given."""
    skipped: list[Skipped]
    computed: int
    """How many images had views that had to be computed; the others were in the store."""
    computed_views: int
    rows: NDArray[np.float32]
    """float32 `[rows of the store, 2C]`, memory-mapped."""
    row_of_NV: NDArray[np.int64]
    """Row in `rows` of each image's views, int64 `[N, V]`."""
    work: Work | None = None
    """None if nothing had to be computed."""

    def __len__(self) -> int:
        """The number of examples, N x V."""
        return self.row_of_NV.size

    def features(self, examples: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activations of some of the examples, float32 `[len(examples), 2C]`, read from disk."""
        return np.asarray(self.rows[self.row_of_NV.ravel()[examples]])

    def labels(self) -> NDArray[np.int64]:
        """The class index of each example, int64 `[N x V]`."""
        return np.repeat(labels_of(self.images), self.row_of_NV.shape[1])


@dataclass(frozen=True)
class ActivationSource(Source):
    """Precomputed activations, a row for each view of each image; float32 `[n, 2C]`."""

    activations: Activations

    def labels(self) -> Rows:
        return self.activations.labels()

    def batches(self, rows: Sequence[Rows], seed: int) -> Iterator[Batch]:
        labels = self.labels()
        for batch in rows:
            yield torch.from_numpy(self.activations.features(batch)), torch.from_numpy(labels[batch])


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/pawserve`, or `~/.cache/pawserve`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pawserve"


def store_folder(cache: Path, *, engine: str, weights: str, preprocess: Preprocess, max_pixels: int) -> Path:
    """Where one network's activations are kept: named by everything they depend on but the image and the view.

    A lower limit of pixels than the default has a store of its own, so that images that are too large are not found.
    """
    facts: dict[str, Any] = {"engine": engine, "weights": weights, "preprocess": asdict(preprocess)}
    if max_pixels < OWN_IMAGE_LIMITS.max_pixels:
        facts["max_pixels"] = max_pixels
    key = json.dumps(facts, sort_keys=True)
    return cache / "activations" / hashlib.sha256(key.encode()).hexdigest()[:32]


def view_key(image: LabelledImage, view: int) -> bytes:
    """The key of a view of an image in a store: 32 bytes; view 0 is the same in every version."""
    return hashlib.sha256(image.sha256 + (f"view {view} of {VIEWS_VERSION}" if view else "view 0").encode()).digest()
