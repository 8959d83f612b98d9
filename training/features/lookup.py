"""A body at one input size in; the activations of images, looked up or computed by all processes together, out."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from serving.image.decode import ImageError, decode
from serving.image.preprocess import Preprocess
from serving.system.cpus import available_cpus
from training.console import progress, say
from training.data.images import DataError, LabelledImage, Skipped
from training.distributed import ProcessGroup, even_parts
from training.features.activations import Activations, Work, compute_activations, store_folder
from training.features.extract import Extract, onnx_extractor, torch_extractor
from training.features.store import ActivationStore
from training.hardware import Hardware
from training.networks.model import Body, count_features

EXTRACT_BATCH_ORT, EXTRACT_BATCH_TORCH = 1, 64
"""Images in one call: in ONNX Runtime a batch is slower than its rows one by one (its maps leave the cache)."""
WORTH_AN_EXPORT = 256
"""Views; torch has looked at fewer before the graph for ONNX Runtime is made."""


@dataclass(frozen=True)
class ActivationProvider:
    """Where the activations of one body at one size come from."""

    body: Body
    preprocess: Preprocess
    weights_sha256: str
    """Of the body."""
    cache: Path
    hardware: Hardware
    processes: ProcessGroup

    def activations(self, images: Sequence[LabelledImage], *, views: int, title: str) -> Activations:
        """Of the first of the fixed views of each image; computed where they are not kept yet.

        Several processes compute a part each; the unreadable images are found by all.
        """
        place = store_folder(self.cache, weights=self.weights_sha256, preprocess=self.preprocess)
        width = count_features(self.body, self.preprocess.crop)
        graph = place / "body.onnx"
        on_gpu = self.hardware.device.type == "cuda"
        in_torch = on_gpu or (len(images) * views < WORTH_AN_EXPORT and not graph.exists())

        workers = max(available_cpus() // self.processes.count, 1)
        prepare_s = 0.0

        def make_extract() -> Extract:
            nonlocal prepare_s
            began = time.monotonic()
            if in_torch:
                extract = torch_extractor(self.body, self.hardware.device)
            else:
                if not graph.exists():
                    say("preparing the network for ONNX Runtime, once: it is kept with the activations")
                extract = onnx_extractor(self.body, self.preprocess.crop, graph)
            prepare_s += time.monotonic() - began
            return extract

        def compute(part: Sequence[LabelledImage], on_progress: Callable[[int, int], None]) -> Activations:
            return compute_activations(
                part,
                store=ActivationStore(place, width),
                make_extract=make_extract,
                preprocess=self.preprocess,
                views=views,
                # torch has threads of its own on a CPU; a GPU wants decoders that run ahead of it
                workers=1 if in_torch and not on_gpu else workers,
                batch_size=EXTRACT_BATCH_TORCH if in_torch else EXTRACT_BATCH_ORT,
                on_progress=on_progress,
            )

        began = time.monotonic()
        with progress(title) as on_progress:
            if self.processes.count == 1:
                found = compute(images, on_progress)
            else:
                # one after another as they lie on the disk, so that hardly a shard is read by two
                lying = sorted(images, key=lambda image: image.path)
                rows = even_parts(np.arange(len(lying)), self.processes.count)[self.processes.rank]
                mine = compute([lying[row] for row in rows], on_progress)
                self.processes.wait()
                computed = self.processes.total(torch.tensor(mine.computed, device=self.hardware.device))
                # what is left are unreadable images, which every process finds for itself
                found = replace(compute(images, on_progress), computed=int(computed))
        if not found.computed:
            return found
        if in_torch:
            engine = f"torch on {self.hardware.device.type}"
        else:
            engine = f"ONNX Runtime, {workers * self.processes.count} single-threaded calls at a time"
        seconds = time.monotonic() - began - prepare_s
        work = Work(engine, found.computed * views, round(seconds, 3), round(prepare_s, 3))
        say(f"{title}: {work.views:,} views by {engine}: {work.rate:,.0f} a second, decoding included")
        return replace(found, work=work)


def resized(preprocess: Preprocess, size: int | None) -> Preprocess:
    """The preprocessing for another input size, with the same margin in proportion."""
    if size is None:
        return preprocess
    return replace(preprocess, crop=size, resize=round(size * preprocess.resize / preprocess.crop))


def readable(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images that can be decoded, in order, and the others with the reason."""

    def reason(image: LabelledImage) -> str | None:
        try:
            decode(image.read(), min_side=1)
        except ImageError as error:
            return f"{error.reason}: {error}"
        except DataError as error:
            return str(error)
        return None

    good: list[LabelledImage] = []
    bad: list[Skipped] = []
    with ThreadPoolExecutor(available_cpus()) as pool, progress("decoding images") as on_progress:
        for done, (image, why) in enumerate(zip(images, pool.map(reason, images), strict=True), 1):
            if why is None:
                good.append(image)
            else:
                bad.append(Skipped(image.path, why))
            on_progress(done, len(images))
    return good, bad
