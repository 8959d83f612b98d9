"""Batches of tensors with labels, for training and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from serving.image.preprocess import Preprocess
from training.data.augment import View, Views, augmentation
from training.data.images import LabelledImage, labels_of

Batch = tuple[Tensor, Tensor]
"""Inputs, first dimension n, and labels int64 `[n]`, on the CPU."""
Rows = NDArray[np.int64]

EVALUATION_BATCH = 256
MAX_KEPT_BYTES = 512 * 2**20
"""Limit of the decoded images that a source keeps: those of 2,700 at 224 pixels, of 8,400 at 128."""
IMAGES_PER_WORKER = 256
"""Fewer are decoded sooner than a worker process starts."""


class Source(ABC):
    """Rows to train on, epoch after epoch. By default any order of rows costs the same."""

    @abstractmethod
    def labels(self) -> Rows:
        """The class index of each row, int64."""

    @abstractmethod
    def batches(self, rows: Sequence[Rows], seed: int) -> Iterator[Batch]:
        """The given rows, batch by batch; the same seed gives the same views."""

    def epoch(self, batch_size: int, seed: int, processes: int) -> list[list[Rows]]:
        """Every row once, in random order: batches, each divided among the processes.

        The number of batches does not depend on the seed.
        """
        return dealt(random_batches(len(self.labels()), batch_size, seed, smallest=2 * processes), processes)

    def parts(self, processes: int) -> list[Rows]:
        """Every row once, divided among the processes."""
        return dealt([np.arange(len(self.labels()))], processes)[0]


@dataclass(frozen=True)
class ImageSource(Source):
    """Decoded and augmented image files; uint8 `[n, crop, crop, 3]`.

    On a GPU, worker processes decode while the network is trained. On a CPU, threads decode between its steps: the
    network keeps all cores busy, and any other work makes its threads wait for one another.
    """

    images: Sequence[LabelledImage]
    preprocess: Preprocess
    augment: Views
    workers: int
    """Processes; 0 for threads."""
    pinned: bool = False
    """Whether batches lie in page-locked memory, which a GPU copies from asynchronously."""
    max_kept_bytes: int = MAX_KEPT_BYTES
    images_per_worker: int = IMAGES_PER_WORKER
    _canvases: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)
    """Decoded images, by row, so that later epochs need not decode them again."""

    def labels(self) -> Rows:
        return labels_of(self.images)

    def batches(self, rows: Sequence[Rows], seed: int) -> Iterator[Batch]:
        view = augmentation(self.augment, self.preprocess.crop)
        if self.workers == 0:
            labels = self.labels()
            with ThreadPoolExecutor(max(torch.get_num_threads(), 1), thread_name_prefix="decoding") as pool:
                for batch in rows:
                    views = pool.map(lambda row: self._view(view, row, seed), batch.tolist())
                    yield torch.from_numpy(np.stack(list(views))), torch.from_numpy(labels[batch])
            return
        loader = DataLoader(
            _ImageDataset(self, view, seed),
            batch_sampler=[batch.tolist() for batch in rows],
            num_workers=min(self.workers, sum(map(len, rows)) // self.images_per_worker),
            collate_fn=_ArrayBatch.of,
            pin_memory=self.pinned,
            generator=torch.Generator().manual_seed(seed),  # otherwise it would draw from the dropout's numbers
        )
        for arrays_or_pinned in loader:
            yield arrays_or_pinned.tensors() if isinstance(arrays_or_pinned, _ArrayBatch) else arrays_or_pinned

    def _view(self, view: View, row: int, seed: int) -> NDArray[np.uint8]:
        canvas_SSC = self._canvases.get(row)
        if canvas_SSC is None:
            canvas_SSC = self.images[row].canvas(self.preprocess)
            # not in a worker process, which ends with the epoch
            if get_worker_info() is None and len(self._canvases) < self.max_kept_bytes // canvas_SSC.nbytes:
                self._canvases[row] = canvas_SSC
        # seeded by the image, so that it does not matter which worker has it
        return view(canvas_SSC, derived_seed(seed, row))


@dataclass(frozen=True)
class _ImageDataset(Dataset[tuple[NDArray[np.uint8], int]]):
    source: ImageSource
    view: View
    seed: int

    def __len__(self) -> int:
        return len(self.source.images)

    def __getitem__(self, row: int) -> tuple[NDArray[np.uint8], int]:
        return self.source._view(self.view, row, self.seed), self.source.images[row].label


@dataclass(frozen=True)
class _ArrayBatch:
    """A batch as arrays, which come from a worker through a pipe.

    Tensors would come through shared memory, of which a container has 64 MiB: less than the batches of a few workers.
    """

    views_NSSC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Sequence[tuple[NDArray[np.uint8], int]]) -> Self:
        views, labels = zip(*examples, strict=True)
        return cls(np.stack(views), np.array(labels, np.int64))

    def tensors(self) -> Batch:
        return torch.from_numpy(self.views_NSSC), torch.from_numpy(self.labels_N)

    def pin_memory(self) -> Batch:
        """The tensors in page-locked memory: `DataLoader` calls this in a thread of its own."""
        inputs, labels = self.tensors()
        return inputs.pin_memory(), labels.pin_memory()


def random_batches(count: int, batch_size: int, seed: int, *, smallest: int = 2) -> list[Rows]:
    """Rows 0 to count - 1 in random order, in batches of at most `batch_size`, each row once.

    A last batch smaller than `smallest` joins the one before: batch norm cannot be trained on a single row, and each
    process needs one.
    """
    order = np.random.default_rng(seed).permutation(count)
    return np.split(order, batch_starts(count, batch_size, smallest=smallest)[1:])


def batch_starts(count: int, batch_size: int, *, smallest: int) -> list[int]:
    """Where each batch of an epoch begins."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] < smallest:
        starts.pop()
    return starts


def dealt(batches: Sequence[Rows], processes: int) -> list[list[Rows]]:
    """Each batch divided among the processes, row by row in turn."""
    return [[batch[rank::processes] for rank in range(processes)] for batch in batches]


def ordered_batches(rows: Rows) -> list[Rows]:
    """The rows in order, in batches."""
    return [rows[at : at + EVALUATION_BATCH] for at in range(0, len(rows), EVALUATION_BATCH)]


def derived_seed(*parts: int) -> int:
    """A seed for one purpose: a hash of the recipe's seed and the purpose, 0 to 2^63 - 1."""
    low, high = np.random.SeedSequence(parts).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1
