"""Batches of images: the same from threads and from processes, and decoded once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serving.image.preprocess import Preprocess
from training.data.image_files import read_images
from training.data.images import LabelledImage
from training.data.sources import ImageSource
from training.recipes.stage import Augment

PREPROCESS = Preprocess(crop=32, resize=36)


@pytest.fixture
def images(drawings: Path) -> list[LabelledImage]:
    return read_images(drawings).train


def batches(source: ImageSource, seed: int) -> list[torch.Tensor]:
    order = np.random.default_rng(0).permutation(len(source.images))
    return [tensor for batch in source.batches([order[:20], order[20:]], seed) for tensor in batch]


@pytest.mark.parametrize("augment", ["none", "side-on", "top-down"])
def test_threads_and_processes_make_the_same_batches(images: list[LabelledImage], augment: Augment) -> None:
    threads, processes = (ImageSource(images, PREPROCESS, augment, workers, images_per_worker=8) for workers in (0, 2))
    for one, other in zip(batches(threads, 7), batches(processes, 7), strict=True):
        assert torch.equal(one, other)


def test_later_epochs_use_kept_images_and_make_other_views(images: list[LabelledImage], tmp_path: Path) -> None:
    copied = [LabelledImage(tmp_path / f"{n}.jpg", image.label, image.sha256) for n, image in enumerate(images)]
    for copy, image in zip(copied, images, strict=True):
        copy.path.write_bytes(image.read())
    source = ImageSource(copied, PREPROCESS, "side-on", 0)
    first = batches(source, 1)
    for copy in copied:
        copy.path.unlink()
    assert all(torch.equal(one, other) for one, other in zip(first, batches(source, 1), strict=True))
    assert not torch.equal(first[0], batches(source, 2)[0])


def test_kept_images_are_bounded(images: list[LabelledImage]) -> None:
    source = ImageSource(images, PREPROCESS, "side-on", 0, max_kept_bytes=5 * 36 * 36 * 3)
    kept_all = ImageSource(images, PREPROCESS, "side-on", 2)
    for _ in range(2):
        for one, other in zip(batches(source, 3), batches(kept_all, 3), strict=True):
            assert torch.equal(one, other)
    assert len(source._canvases) <= 6  # two threads may both find room for the last


def test_batches_leave_the_random_state_of_the_process_unchanged(images: list[LabelledImage]) -> None:
    before = torch.get_rng_state()
    batches(ImageSource(images, PREPROCESS, "top-down", 0), 5)
    assert torch.equal(before, torch.get_rng_state())
