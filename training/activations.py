"""Photos in; the body's activations for each out, computed once and kept in a store on disk.

The store's folder is named by everything but the photo that activations depend on (weights, preprocessing, view);
within it a photo's key is the SHA-256 of its contents. So a changed photo, and it alone, is computed again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.decode import ImageError
from serving.preprocess import Preprocess
from serving.views import look
from training.activation_store import ActivationStore
from training.data import DataError, Photo, Skipped
from training.extract import Extract

_T = TypeVar("_T")
_R = TypeVar("_R")

BATCHES_AT_ONCE = 4
"""Batches in work or waiting for each worker: enough that none idles, few enough that memory stays flat."""
APPEND_ROWS = 256
"""Rows added to the store at a time: what an interrupt may cost."""


@dataclass(frozen=True)
class Activations:
    """What is known of a list of photos: `rows[row_of[i]]` are the activations of `photos[i]`."""

    photos: list[Photo]
    """Those that could be decoded, in the order given."""
    skipped: list[Skipped]
    computed: int
    """How many had to be computed; the others were there already."""
    rows: NDArray[np.float32]
    """float32 `[n, 2C]`, memory-mapped."""
    row_of: NDArray[np.int64]

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activations of some of the photos, float32 `[len(indices), 2C]`, read from disk."""
        return np.asarray(self.rows[self.row_of[indices]])

    def labels(self) -> NDArray[np.int64]:
        """The class index of each photo, int64 `[len(photos)]`."""
        return np.array([photo.label for photo in self.photos], np.int64)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/pawserve`, or `~/.cache/pawserve`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pawserve"


def store_folder(cache: Path, *, weights: str, preprocess: Preprocess, view: int) -> Path:
    """Where the activations of one view are kept: a name for all that they depend on but the photo."""
    key = json.dumps({"weights": weights, "preprocess": asdict(preprocess), "view": view}, sort_keys=True)
    return cache / "activations" / hashlib.sha256(key.encode()).hexdigest()[:32]


def compute_activations(
    photos: Sequence[Photo],
    *,
    store: ActivationStore,
    make_extract: Callable[[], Extract],
    preprocess: Preprocess,
    view: int,
    workers: int,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> Activations:
    """Look up what the store has, compute and add what it lacks.

    Args:
        make_extract: called only if something has to be computed.
        workers: threads that each decode a batch and extract its features.
        on_progress: called with (photos done, photos to compute).

    Returns:
        The activations of every photo that could be decoded; the others are in `skipped`.
    """
    missing = _missing(photos, store)
    skipped: dict[bytes, str] = {}
    if missing:
        on_progress(0, len(missing))
        extract = make_extract()

        def work(batch: Sequence[Photo]) -> list[tuple[bytes, NDArray[np.float32] | str]]:
            return _extract_batch(batch, extract, preprocess, view)

        keys: list[bytes] = []
        rows: list[NDArray[np.float32]] = []
        done = 0
        batches = [missing[at : at + batch_size] for at in range(0, len(missing), batch_size)]
        for results in _in_threads(work, batches, workers):
            for key, result in results:
                if isinstance(result, str):
                    skipped[key] = result
                else:
                    keys.append(key)
                    rows.append(result)
            done += len(results)
            on_progress(done, len(missing))
            if keys and (len(keys) >= APPEND_ROWS or done == len(missing)):
                store.append(keys, np.stack(rows))
                keys, rows = [], []
        if keys:
            store.append(keys, np.stack(rows))
    row_of = store.find([photo.sha256 for photo in photos])
    return Activations(
        photos=[photo for photo, row in zip(photos, row_of, strict=True) if row >= 0],
        skipped=[Skipped(photo.path, skipped[photo.sha256]) for photo in photos if photo.sha256 in skipped],
        computed=len(missing) - len(skipped),
        rows=store.rows,
        row_of=row_of[row_of >= 0],
    )


def _missing(photos: Sequence[Photo], store: ActivationStore) -> list[Photo]:
    """One photo for each key that the store lacks."""
    rows = store.find([photo.sha256 for photo in photos])
    by_key = {photo.sha256: photo for photo, row in zip(photos, rows, strict=True) if row < 0}
    return list(by_key.values())


def _extract_batch(
    photos: Sequence[Photo], extract: Extract, preprocess: Preprocess, view: int
) -> list[tuple[bytes, NDArray[np.float32] | str]]:
    """Each photo's key with its features, or with the reason why it has none."""
    results: list[tuple[bytes, NDArray[np.float32] | str]] = []
    keys: list[bytes] = []
    images: list[NDArray[np.uint8]] = []
    for photo in photos:
        try:
            images.append(look(preprocess.canvas(photo.read()), preprocess.crop, first=view)[0])
            keys.append(photo.sha256)
        except ImageError as error:
            results.append((photo.sha256, f"{error.reason}: {error}"))
        except DataError as error:
            results.append((photo.sha256, str(error)))
    if images:
        results += zip(keys, extract(np.stack(images)), strict=True)
    return results


def _in_threads(work: Callable[[_T], _R], items: Sequence[_T], workers: int) -> Iterator[_R]:
    """Results as they come, in any order; when the caller stops or fails, what has not begun is dropped."""
    waiting = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="activations")
    try:
        running: set[Future[_R]] = {pool.submit(work, item) for item in islice(waiting, workers * BATCHES_AT_ONCE)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(work, item) for item in islice(waiting, len(done))}
    finally:
        pool.shutdown(cancel_futures=True)
