"""Photos as batches: the same in threads and in processes, and decoded once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from serving.image.preprocess import Preprocess
from training.data import sources
from training.data.images import Photo, list_photos
from training.data.images import hash_photos as hashed
from training.data.sources import PhotoSource

PREPROCESS = Preprocess(crop=32, resize=36)


@pytest.fixture
def photos(drawings: Path) -> list[Photo]:
    found, _ = hashed(list_photos(drawings / "train", ["cats", "dogs"]), None)
    return found


def batches(source: PhotoSource, seed: int) -> list[torch.Tensor]:
    order = np.random.default_rng(0).permutation(len(source.photos))
    return [tensor for batch in source.batches([order[:20], order[20:]], seed) for tensor in batch]


def test_threads_and_processes_make_the_same_batches(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WORTH_A_PROCESS", 8)
    for augment in ("none", "side-on", "top-down"):
        threads, processes = (PhotoSource(photos, PREPROCESS, augment, workers) for workers in (0, 2))  # type: ignore[arg-type]
        for one, other in zip(batches(threads, 7), batches(processes, 7), strict=True):
            assert torch.equal(one, other)


def test_later_epochs_look_at_kept_photos_and_see_other_views(photos: list[Photo], tmp_path: Path) -> None:
    copied = [Photo(tmp_path / f"{n}.jpg", photo.label, photo.sha256) for n, photo in enumerate(photos)]
    for copy, photo in zip(copied, photos, strict=True):
        copy.path.write_bytes(photo.read())
    source = PhotoSource(copied, PREPROCESS, "side-on", 0)
    first = batches(source, 1)
    for copy in copied:
        copy.path.unlink()
    assert all(torch.equal(one, other) for one, other in zip(first, batches(source, 1), strict=True))
    assert not torch.equal(first[0], batches(source, 2)[0])


def test_what_is_kept_is_bounded(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_KEPT_BYTES", 5 * 36 * 36 * 3)
    source = PhotoSource(photos, PREPROCESS, "side-on", 0)
    kept_all = PhotoSource(photos, PREPROCESS, "side-on", 2)
    for _ in range(2):
        for one, other in zip(batches(source, 3), batches(kept_all, 3), strict=True):
            assert torch.equal(one, other)
    assert len(source._canvases) <= 6  # two threads may both find room for the last


def test_batches_draw_nothing_from_the_process(photos: list[Photo]) -> None:
    before = torch.get_rng_state()
    batches(PhotoSource(photos, PREPROCESS, "top-down", 0), 5)
    assert torch.equal(before, torch.get_rng_state())
