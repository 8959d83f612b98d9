"""Finds or computes the activations of images, in all processes together, and logits from them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.image.folders import Skipped, describe_skipped
from serving.image.preprocess import Preprocess
from serving.system.cpus import available_cpus
from training.console import progress, say
from training.data.images import LabelledImage, or_reason
from training.data.layout import DataError
from training.data.shards import contents
from training.data.sources import ordered_batches
from training.distributed import ProcessGroup
from training.features.activations import Activations, Work, store_folder, view_key
from training.features.extract import Extract, onnx_extractor, torch_extractor
from training.features.store import ActivationStore
from training.hardware import Hardware
from training.networks.model import Body, Classifier, Network, class_count, count_features, members

_T = TypeVar("_T")
_R = TypeVar("_R")
Read = Callable[[], bytes]
"""Reads an image's content."""
Features = tuple[LabelledImage, NDArray[np.float32] | str]
"""An image with the features of its views that had to be computed, float32 `[V, 2C]`, or with the reason for none."""

EXTRACT_BATCH_ORT, EXTRACT_BATCH_TORCH = 1, 64
"""Images in one call: in ONNX Runtime a batch is slower than its rows one by one (its maps leave the cache)."""
MIN_VIEWS_FOR_ONNX = 256
"""Fewer are computed by torch sooner than the graph for ONNX Runtime is exported."""
BATCHES_PER_WORKER = 32
"""Batches in work or waiting for each worker: enough that none idles while rows are written to the disk."""
APPEND_ROWS = 256
"""Rows added to the store at a time, and at most lost by an interrupt."""


@dataclass(frozen=True)
class ActivationProvider:
    """Finds or computes the activations of one body at one input size."""

    body: Body
    preprocess: Preprocess
    weights_sha256: str
    """SHA-256 of the body's weights."""
    cache: Path
    hardware: Hardware
    processes: ProcessGroup
    max_views: int
    """The most views that the command asks for at once: on a CPU, it decides the engine for all of them. What the
    cache holds does not, so that the same command always gives the same activations."""

    @property
    def in_torch(self) -> bool:
        """Whether torch computes the activations, not ONNX Runtime."""
        return self.hardware.device.type == "cuda" or self.max_views < MIN_VIEWS_FOR_ONNX

    @property
    def workers(self) -> int:
        """Threads that each decode a batch of images and extract its features."""
        if self.in_torch and self.hardware.device.type != "cuda":  # torch has threads of its own on a CPU
            return 1
        return max(available_cpus() // self.processes.count, 1)  # a GPU needs decoders that run ahead of it

    def activations(self, images: Sequence[LabelledImage], *, views: int, title: str) -> Activations:
        """The activations of the first of the fixed views of each image, of those that could be decoded.

        Several processes compute a part each; each process finds all unreadable images.
        """
        engine = f"torch on {self.hardware.device.type}" if self.in_torch else "ONNX Runtime"
        folder = store_folder(
            self.cache,
            engine=engine,
            weights=self.weights_sha256,
            preprocess=self.preprocess,
            max_pixels=min(image.limits.max_pixels for image in images),
        )
        prepare_s = 0.0

        def make_extract() -> Extract:
            nonlocal prepare_s
            began = time.monotonic()
            if self.in_torch:
                extract = torch_extractor(self.body, self.hardware.device)
            else:
                extract = onnx_extractor(self.body, self.preprocess.crop, folder / "body")
            prepare_s += time.monotonic() - began
            return extract

        open_store = partial(ActivationStore, folder, count_features(self.body, self.preprocess.crop))
        began = time.monotonic()
        with progress(title) as on_progress:
            if self.processes.count == 1:
                found = self._find(images, views, open_store(), make_extract, on_progress)
            else:
                # in the order of the disk, so that hardly a shard is read by two processes
                by_path = sorted(images, key=lambda image: image.path)
                rows = np.array_split(np.arange(len(by_path)), self.processes.count)[self.processes.rank]
                mine = self._find([by_path[row] for row in rows], views, open_store(), make_extract, on_progress)
                self.processes.wait()
                counts = torch.tensor([mine.computed, mine.computed_views], device=self.hardware.device)
                images_in_all, views_in_all = self.processes.total(counts).tolist()
                # only unreadable images are left, which every process finds for itself
                found = self._find(images, views, open_store(), make_extract, on_progress)
                found = replace(found, computed=int(images_in_all), computed_views=int(views_in_all))
        if not found.computed:
            return found
        if not self.in_torch:
            engine += f", {self.workers * self.processes.count} single-threaded calls at a time"
        seconds = time.monotonic() - began - prepare_s
        work = Work(engine, found.computed_views, round(seconds, 3), round(prepare_s, 3))
        say(f"{title}: {work.views:,} views by {engine}: {work.rate:,.0f} views/s, decoding included")
        return replace(found, work=work)

    def _find(
        self,
        images: Sequence[LabelledImage],
        views: int,
        store: ActivationStore,
        make_extract: Callable[[], Extract],
        on_progress: Callable[[int, int], None],
    ) -> Activations:
        """Look up what a store has; compute and add what it lacks, if anything, by what is made then."""
        keys = [view_key(image, view) for image in images for view in range(views)]
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
            new_keys: list[bytes] = []
            new_rows: list[NDArray[np.float32]] = []
            done, waiting = 0, contents(missing)
            batch_size = EXTRACT_BATCH_TORCH if self.in_torch else EXTRACT_BATCH_ORT
            for results in _in_threads(
                lambda batch: self._extract(batch, extract, known, views),
                iter(lambda: list(islice(waiting, batch_size)), []),
                self.workers,
            ):
                for image, result in results:
                    if isinstance(result, str):
                        skipped[image.sha256] = result
                    else:
                        new_keys += [view_key(image, view) for view in range(known[image.sha256], views)]
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

    def _extract(
        self, batch: Sequence[tuple[LabelledImage, Read]], extract: Extract, known: Mapping[bytes, int], views: int
    ) -> list[Features]:
        """The features of a batch; `known`: how many of an image's first views are in the store, by its content."""

        def views_of(image: LabelledImage, read: Read) -> NDArray[np.uint8]:
            first = known[image.sha256]
            return self.preprocess.views(read(), views - first, first=first, limits=image.limits)

        found = [(image, or_reason(partial(views_of, image, read))) for image, read in batch]
        results: list[Features] = [(image, reason) for image, reason in found if isinstance(reason, str)]
        if decoded := [(image, views_VHWC) for image, views_VHWC in found if not isinstance(views_VHWC, str)]:
            features = extract(np.concatenate([views_VHWC for _, views_VHWC in decoded]))
            starts = np.cumsum([len(views_VHWC) for _, views_VHWC in decoded])[:-1]
            results += zip([image for image, _ in decoded], np.split(features, starts), strict=True)
        return results


def view_logits(
    network: Network,
    images: Sequence[LabelledImage],
    *,
    views: int,
    provider: Callable[[Classifier], ActivationProvider],
) -> tuple[NDArray[np.float32], list[LabelledImage], list[Skipped]]:
    """Evaluate a network on the fixed views that serving makes.

    Args:
        provider: of the activations of a member's body.

    Returns:
        Logits float32 `[views, N, K]` of the images that could be read, in order; those images; the others.

    Raises:
        DataError: if no image can be read, with the reasons.
    """
    per_member = []
    for classifier in members(network):
        activations = provider(classifier).activations(images, views=views, title="evaluating")
        if not activations.images:
            raise DataError("\n".join(["no image can be read", *describe_skipped(activations.skipped)]))
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


def _in_threads(work: Callable[[_T], _R], items: Iterator[_T], workers: int) -> Iterator[_R]:
    """Results as they are finished, in any order; if the consumer stops or fails, queued work is dropped."""
    finished: SimpleQueue[Future[_R]] = SimpleQueue()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="activations")

    def submit(count: int) -> int:
        batches = list(islice(items, count))
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
