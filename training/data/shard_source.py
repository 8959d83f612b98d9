"""Batches of images from shards, each shard read from end to end.

A small set is kept in memory, encoded, once it has been read: then its order, and so the training, is that of images
in folders. A larger one streams: in each epoch the shards come in another order, every process reads its part of them,
and images are mixed within a few shards at a time.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.image.preprocess import Preprocess
from training.data.augment import Views, augmentation
from training.data.images import LabelledImage, labels_of
from training.data.shards import ShardImage, ShardIndex
from training.data.sources import Batch, ImageSource, Rows, Source, batch_starts, derived_seed
from training.hardware import Hardware

MAX_HELD_BYTES = 512 * 2**20
"""Limit of the encoded images that a process keeps between epochs."""
MIXED_SHARDS = 8
"""Shards whose images are mixed; they are in memory together."""
BATCHES_AHEAD = 3
"""Batches decoded ahead of a GPU; on a CPU the network needs the cores that would decode ahead."""


def image_source(images: Sequence[LabelledImage], preprocess: Preprocess, augment: Views, hardware: Hardware) -> Source:
    """The source for images in a folder or in shards."""
    pinned = hardware.device.type == "cuda"
    first = images[0]
    if not isinstance(first, ShardImage):
        return ImageSource(images, preprocess, augment, hardware.workers, pinned)
    return ShardSource(first.index, images, preprocess, augment, hardware.workers or torch.get_num_threads(), pinned)


@dataclass(frozen=True)
class ShardSource(Source):
    """The training or the validation images of a set of shards; uint8 `[n, crop, crop, 3]`."""

    index: ShardIndex
    images: Sequence[LabelledImage]
    preprocess: Preprocess
    augment: Views
    threads: int
    """Number of decoding threads."""
    pinned: bool = False
    """Whether batches lie in page-locked memory and are decoded ahead of the GPU."""
    max_held_bytes: int = MAX_HELD_BYTES
    _held: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Encoded images that have been read and will be needed, by row."""

    def labels(self) -> Rows:
        return labels_of(self.images)

    @cached_property
    def streams(self) -> bool:
        """Whether the images are too many to be kept."""
        return sum(self.index.shards[file].members[name].size for file, name in self._places) > self.max_held_bytes

    def epoch(self, batch_size: int, seed: int, processes: int) -> list[list[Rows]]:
        if not self.streams:
            return super().epoch(batch_size, seed, processes)
        rng = np.random.default_rng(seed)
        shards = self._rows_by_shard
        shuffled = [shards[at] for at in rng.permutation(len(shards))]
        number = len(batch_starts(len(self.images), batch_size, smallest=2 * processes))
        mixed = [_mixed(part, rng) for part in _split_rows(shuffled, processes)]
        return [list(batch) for batch in zip(*(np.array_split(rows, number) for rows in mixed), strict=True)]

    def parts(self, processes: int) -> list[Rows]:
        return np.array_split(np.concatenate(self._rows_by_shard), processes)

    def batches(self, rows: Sequence[Rows], seed: int) -> Iterator[Batch]:
        view = augmentation(self.augment, self.preprocess.crop)

        def view_of(row: int, content: bytes) -> NDArray[np.uint8]:
            # seeded by the image, so that it does not matter which process has it
            return view(self.preprocess.canvas(content, limits=self.images[row].limits), derived_seed(seed, row))

        with ThreadPoolExecutor(self.threads, thread_name_prefix="decoding") as pool:
            waiting: list[tuple[Iterator[NDArray[np.uint8]], Rows]] = []
            for batch, contents in zip(rows, self._contents(rows), strict=True):
                waiting.append((pool.map(view_of, batch.tolist(), contents), batch))
                if len(waiting) > (BATCHES_AHEAD if self.pinned else 0):
                    yield self._tensors(*waiting.pop(0))
            for each in waiting:
                yield self._tensors(*each)

    def _tensors(self, views: Iterator[NDArray[np.uint8]], batch: Rows) -> tuple[Tensor, Tensor]:
        inputs = torch.from_numpy(np.stack(list(views)))
        labels = torch.from_numpy(labels_of([self.images[row] for row in batch]))
        return (inputs.pin_memory(), labels.pin_memory()) if self.pinned else (inputs, labels)

    def _contents(self, rows: Sequence[Rows]) -> Iterator[list[bytes]]:
        """The encoded images of each batch; a shard is read when the first of its images is needed."""
        keep = not self.streams
        wanted = {int(row) for batch in rows for row in batch}
        held = self._held if keep else {}
        row_of = {self._places[row]: row for row in wanted}
        for batch in rows:
            found = []
            for row in batch.tolist():
                if row not in held:
                    file, _ = self._places[row]
                    for name, content in self.index.read_shard(file).items():
                        other = row_of.get((file, name))
                        if other in wanted:
                            held[other] = content
                found.append(held[row])
                if not keep:
                    del held[row]
                    wanted.discard(row)
            yield found

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        """The shard and the name within it of each row."""
        return [(image.path.parent.name, image.path.name) for image in self.images]

    @cached_property
    def _rows_by_shard(self) -> list[Rows]:
        rows: dict[str, list[int]] = {}
        for (file, _), row in sorted(zip(self._places, range(len(self._places)), strict=True)):
            rows.setdefault(file, []).append(row)
        return [np.array(of_shard, np.int64) for of_shard in rows.values()]


def _split_rows(shards: Sequence[Rows], processes: int) -> list[list[Rows]]:
    """Adjacent shards for each process, with even numbers of rows: two processes may both read one shard."""
    shard_of = np.repeat(np.arange(len(shards)), [len(rows) for rows in shards])
    parts = zip(np.array_split(np.concatenate(shards), processes), np.array_split(shard_of, processes), strict=True)
    return [[rows[numbers == number] for number in dict.fromkeys(numbers.tolist())] for rows, numbers in parts]


def _mixed(shards: Sequence[Rows], rng: np.random.Generator) -> Rows:
    """The rows of a few shards at a time, in random order."""
    groups = [np.concatenate(shards[at : at + MIXED_SHARDS]) for at in range(0, len(shards), MIXED_SHARDS)]
    return np.concatenate([rng.permutation(group) for group in groups])
