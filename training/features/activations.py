"""The body's activations for images, computed once and kept in a store on disk.

The store's folder is named by the weights and the preprocessing that they depend on; within it a key stands for an
image's content and the view of it. So only a changed image is computed again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from serving.image.folders import Skipped
from serving.image.preprocess import Preprocess
from serving.image.views import VIEWS_VERSION
from training.console import say
from training.data.images import TRAINING_LIMITS, LabelledImage, labels_of, or_reason
from training.data.shards import contents
from training.data.sources import Batch, Rows, Source
from training.features.extract import Extract
from training.features.store import ActivationStore

_T = TypeVar("_T")
_R = TypeVar("_R")
Read = Callable[[], bytes]
"""Reads an image's content."""

BATCHES_PER_WORKER = 32
"""Batches in work or waiting for each worker: enough that none idles while rows are written to the disk."""
APPEND_ROWS = 256
"""Rows added to the store at a time, and at most lost by an interrupt."""


@dataclass(frozen=True)
class Work:
    """What was computed, and how long it took."""

    engine: str
    """What computed the activations, for display."""
    views: int
    """Rows that were computed: one for each view of an image."""
    seconds: float
    """Of decoding, computing and storing."""
    prepare_s: float
    """Of preparing the engine, once."""

    @property
    def rate(self) -> float:
        """Views per second."""
        return self.views / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Activations:
    """Of N images, V views each. An example is one view of one image: number i is image i // V, view i % V."""

    images: list[LabelledImage]
    """Those that could be decoded, in the order given."""
    skipped: list[Skipped]
    computed: int
    """How many images had views that had to be computed; the others were in the store."""
    computed_views: int
    rows: NDArray[np.float32]
    """float32 `[rows of the store, 2C]`, memory-mapped."""
    row_of_NV: NDArray[np.int64]
    """Where in `rows` each image's views are, int64 `[N, V]`."""
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
    if max_pixels < TRAINING_LIMITS.max_pixels:
        facts["max_pixels"] = max_pixels
    key = json.dumps(facts, sort_keys=True)
    return cache / "activations" / hashlib.sha256(key.encode()).hexdigest()[:32]


def compute_activations(
    images: Sequence[LabelledImage],
    *,
    store: ActivationStore,
    make_extract: Callable[[], Extract],
    preprocess: Preprocess,
    views: int,
    workers: int,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> Activations:
    """Look up what the store has; compute and add what it lacks.

    Args:
        make_extract: called only if something has to be computed.
        views: how many views of each image, from view 0 on.
        workers: threads that each decode a batch of images and extract its features.
        on_progress: called with (images done, images to compute).

    Returns:
        The activations of every image that could be decoded; the others are in `skipped`.
    """
    keys = [_key(image, view) for image in images for view in range(views)]
    row_of_NV = store.find(keys).reshape(-1, views)
    known_N = (row_of_NV >= 0).cumprod(1).sum(1)  # how many of the first views of each image
    known = {image.sha256: count for image, count in zip(images, known_N.tolist(), strict=True)}
    missing = list({image.sha256: image for image in images if known[image.sha256] < views}.values())
    skipped: dict[bytes, str] = {}
    if store.damaged:
        say(f"{store.damaged:,} rows of {store.folder} do not match their checksums: they are computed again")
    if missing:
        extract = make_extract()
        on_progress(0, len(missing))

        def work(batch: Sequence[tuple[LabelledImage, Read]]) -> list[tuple[LabelledImage, NDArray[np.float32] | str]]:
            return _extract_batch(batch, extract, preprocess, known, views)

        new_keys: list[bytes] = []
        new_rows: list[NDArray[np.float32]] = []
        done = 0
        for results in _in_threads(work, _batches(contents(missing), batch_size), workers):
            for image, result in results:
                if isinstance(result, str):
                    skipped[image.sha256] = result
                else:
                    new_keys += [_key(image, view) for view in range(known[image.sha256], views)]
                    new_rows.append(result)
            done += len(results)
            on_progress(done, len(missing))
            if new_keys and (len(new_keys) >= APPEND_ROWS or done == len(missing)):
                store.append(new_keys, np.concatenate(new_rows))
                new_keys, new_rows = [], []
        row_of_NV = store.find(keys).reshape(-1, views)
    present = row_of_NV.min(1) >= 0
    return Activations(
        images=[image for image, known in zip(images, present, strict=True) if known],
        skipped=[Skipped(image.path, skipped[image.sha256]) for image in images if image.sha256 in skipped],
        computed=len(missing) - len(skipped),
        computed_views=sum(views - known[image.sha256] for image in missing if image.sha256 not in skipped),
        rows=store.rows,
        row_of_NV=row_of_NV[present],
    )


def _key(image: LabelledImage, view: int) -> bytes:
    # view 0 is the same in every version
    return hashlib.sha256(image.sha256 + (f"view {view} of {VIEWS_VERSION}" if view else "view 0").encode()).digest()


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def _extract_batch(
    images: Sequence[tuple[LabelledImage, Read]],
    extract: Extract,
    preprocess: Preprocess,
    known: Mapping[bytes, int],
    views: int,
) -> list[tuple[LabelledImage, NDArray[np.float32] | str]]:
    """Each image with the features of its views that are not known, float32 `[V, 2C]`, or with the reason for none.

    Args:
        known: how many of the first views of each image are in the store, by the hash of its content.
    """
    results: list[tuple[LabelledImage, NDArray[np.float32] | str]] = []
    decoded: list[LabelledImage] = []
    views_NVHWC: list[NDArray[np.uint8]] = []

    def view_image(image: LabelledImage, read: Read) -> NDArray[np.uint8]:
        first = known[image.sha256]
        return preprocess.views(read(), views - first, first=first, limits=image.limits)

    for image, read in images:
        found = or_reason(partial(view_image, image, read))
        if isinstance(found, str):
            results.append((image, found))
        else:
            views_NVHWC.append(found)
            decoded.append(image)
    if decoded:
        features = extract(np.concatenate(views_NVHWC))
        starts = np.cumsum([len(views_VHWC) for views_VHWC in views_NVHWC])[:-1]
        results += zip(decoded, np.split(features, starts), strict=True)
    return results


def _in_threads(work: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """Results as they are finished, in any order; if the consumer stops or fails, queued work is dropped."""
    waiting = iter(items)
    finished: SimpleQueue[Future[_R]] = SimpleQueue()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="activations")

    def submit(count: int) -> int:
        batches = list(islice(waiting, count))
        for item in batches:
            pool.submit(work, item).add_done_callback(finished.put)
        return len(batches)

    try:
        running = submit(workers * BATCHES_PER_WORKER)
        while running:
            result = finished.get().result()
            running += submit(1) - 1
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
