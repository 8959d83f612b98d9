"""Finds or computes the activations of images, in all processes together, and logits from them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.image.folders import Skipped, describe_skipped
from serving.image.preprocess import Preprocess
from serving.system.cpus import available_cpus
from training.console import progress, say
from training.data.images import LabelledImage
from training.data.layout import DataError
from training.data.sources import ordered_batches
from training.distributed import ProcessGroup, even_parts
from training.features.activations import Activations, Work, compute_activations, store_folder
from training.features.extract import Extract, onnx_extractor, torch_extractor
from training.features.store import ActivationStore
from training.hardware import Hardware
from training.networks.model import Body, Classifier, Network, class_count, count_features, members

EXTRACT_BATCH_ORT, EXTRACT_BATCH_TORCH = 1, 64
"""Images in one call: in ONNX Runtime a batch is slower than its rows one by one (its maps leave the cache)."""
MIN_VIEWS_FOR_ONNX = 256
"""Fewer are computed by torch sooner than the graph for ONNX Runtime is exported."""


@dataclass(frozen=True)
class ActivationProvider:
    """Finds or computes the activations of one body at one input size."""

    body: Body
    preprocess: Preprocess
    weights_sha256: str
    """Of the body."""
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

    def activations(self, images: Sequence[LabelledImage], *, views: int, title: str) -> Activations:
        """The activations of the first of the fixed views of each image.

        Several processes compute a part each; each process finds all unreadable images.
        """
        on_gpu, in_torch = self.hardware.device.type == "cuda", self.in_torch
        engine = f"torch on {self.hardware.device.type}" if in_torch else "ONNX Runtime"
        folder = store_folder(
            self.cache,
            engine=engine,
            weights=self.weights_sha256,
            preprocess=self.preprocess,
            max_pixels=min(image.limits.max_pixels for image in images),
        )
        width = count_features(self.body, self.preprocess.crop)
        graph = folder / "body"
        workers = max(available_cpus() // self.processes.count, 1)
        prepare_s = 0.0

        def make_extract() -> Extract:
            nonlocal prepare_s
            began = time.monotonic()
            if in_torch:
                extract = torch_extractor(self.body, self.hardware.device)
            else:
                extract = onnx_extractor(self.body, self.preprocess.crop, graph)
            prepare_s += time.monotonic() - began
            return extract

        def compute(part: Sequence[LabelledImage], on_progress: Callable[[int, int], None]) -> Activations:
            return compute_activations(
                part,
                store=ActivationStore(folder, width),
                make_extract=make_extract,
                preprocess=self.preprocess,
                views=views,
                # torch has threads of its own on a CPU; a GPU needs decoders that run ahead of it
                workers=1 if in_torch and not on_gpu else workers,
                batch_size=EXTRACT_BATCH_TORCH if in_torch else EXTRACT_BATCH_ORT,
                on_progress=on_progress,
            )

        began = time.monotonic()
        with progress(title) as on_progress:
            if self.processes.count == 1:
                found = compute(images, on_progress)
            else:
                # in the order of the disk, so that hardly a shard is read by two processes
                by_path = sorted(images, key=lambda image: image.path)
                rows = even_parts(np.arange(len(by_path)), self.processes.count)[self.processes.rank]
                mine = compute([by_path[row] for row in rows], on_progress)
                self.processes.wait()
                counts = torch.tensor([mine.computed, mine.computed_views], device=self.hardware.device)
                images_in_all, views_in_all = self.processes.total(counts).tolist()
                # only unreadable images are left, which every process finds for itself
                found = replace(
                    compute(images, on_progress), computed=int(images_in_all), computed_views=int(views_in_all)
                )
        if not found.computed:
            return found
        if not in_torch:
            engine += f", {workers * self.processes.count} single-threaded calls at a time"
        seconds = time.monotonic() - began - prepare_s
        work = Work(engine, found.computed_views, round(seconds, 3), round(prepare_s, 3))
        say(f"{title}: {work.views:,} views by {engine}: {work.rate:,.0f} views/s, decoding included")
        return replace(found, work=work)


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
