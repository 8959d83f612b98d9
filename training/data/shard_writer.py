"""A folder of images in; tar files of them, in random order, and their index out."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from serving.image.decode import ImageError, decode
from serving.system.cpus import available_cpus
from serving.system.files import new_folder, sync_folder
from training.console import progress
from training.data.images import TRAIN, VALID, DataError, LabelledImage, Skipped, Split, read_split
from training.data.shards import INDEX_FILE, INDEX_FORMAT, checked_url

AT_ONCE = 64
"""Images read ahead of the one that is written."""
HEADER = tarfile.BLOCKSIZE


def write_shards(
    data: Path, out: Path, *, shard_bytes: int, valid_fraction: float, seed: int, url: str | None = None
) -> tuple[Split, list[Skipped], int]:
    """Write a folder of shards, whole or not at all.

    Args:
        data: as `training.data.images.read_split` takes it.
        out: must not exist, or be empty.
        shard_bytes: of images in a shard, about: it may be one image more.
        valid_fraction, seed: what is held out where there is no `valid` folder; the seed also gives the order.
        url: where the shards will be read from, if not from beside the index.

    Returns:
        What was found, the files left out because they are no images, and the number of shards.

    Raises:
        DataError, ValueError: with what to change.
        OSError: if something cannot be written; nothing is left behind.
    """
    url = None if url is None else checked_url(url)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already: give a new or an empty folder")
    with progress("reading images") as on_progress:
        split, skipped = read_split(data, valid_fraction=valid_fraction, seed=seed, on_progress=on_progress)
    shards: list[dict[str, Any]] = []
    total, done = len(split.train) + len(split.valid), 0
    out = out.absolute()
    with new_folder(out.parent, out.name) as folder, progress("writing shards") as on_progress:
        for side, images in ((TRAIN, split.train), (VALID, split.valid)):
            order = np.random.default_rng([seed, side == VALID]).permutation(len(images))
            writing = _Writing(folder, side, data, shard_bytes)
            for image, content in _read([images[row] for row in order]):
                if isinstance(content, str):
                    skipped.append(Skipped(image.path, content))
                else:
                    writing.add(image, content)
                done += 1
                on_progress(done, total)
            shards += writing.end()
        left_out = {file.path for file in skipped}
        kept = [[image for image in side if image.path not in left_out] for side in (split.train, split.valid)]
        split = Split(split.classes, *kept)
        split.check()
        index = {
            "format": INDEX_FORMAT,
            "classes": list(split.classes),
            "counts": {TRAIN: len(split.train), VALID: len(split.valid)},
            "fingerprint": split.fingerprint(),
            "seed": seed,
            "url": url,
            "shards": shards,
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, ensure_ascii=False) + "\n", encoding="utf-8")
        sync_folder(folder)
        os.rename(folder, out)
    return split, skipped, len(shards)


def _read(images: Sequence[LabelledImage]) -> Iterator[tuple[LabelledImage, bytes | str]]:
    """Each image with its contents or, if it cannot be decoded, the reason; a few are read ahead."""

    def read(image: LabelledImage) -> bytes | str:
        try:
            content = image.read()
            decode(content, min_side=1)
        except ImageError as error:
            return f"{error.reason}: {error}"
        except DataError as error:
            return str(error)
        return content

    with ThreadPoolExecutor(available_cpus()) as pool:
        for at in range(0, len(images), AT_ONCE):
            some = images[at : at + AT_ONCE]
            yield from zip(some, pool.map(read, some), strict=True)


class _Writing:
    """The shards of one side, one after another."""

    def __init__(self, folder: Path, side: str, data: Path, shard_bytes: int) -> None:
        self.folder = folder
        self.side = side
        self.data = data
        self.shard_bytes = shard_bytes
        self.done: list[dict[str, Any]] = []
        self.count = 0
        self._begin()

    def _begin(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (until _cut)
        self.images: list[tuple[str, int, str, int, int, str]] = []

    def add(self, image: LabelledImage, content: bytes) -> None:
        """Put an image into the shard, under a number; a full shard is written first."""
        if self.images and self.buffer.tell() + len(content) > self.shard_bytes:
            self._cut()
        suffix = image.path.suffix[1:].lower()
        # neither its name nor its times: the same images and seed make the same bytes
        entry = tarfile.TarInfo(f"{self.count:09d}.{suffix if suffix.isascii() and suffix.isalnum() else 'img'}"[:18])
        entry.size = len(content)
        source = image.path.relative_to(self.data).as_posix()
        offset = self.buffer.tell() + HEADER
        self.images.append((entry.name, image.label, image.sha256.hex(), offset, len(content), source))
        self.tar.addfile(entry, io.BytesIO(content))
        self.count += 1

    def end(self) -> list[dict[str, Any]]:
        """Write what is left; what the index says of all of them."""
        if self.images:
            self._cut()
        return self.done

    def _cut(self) -> None:
        self.tar.close()
        content = self.buffer.getvalue()
        file = f"{self.side}-{len(self.done):06d}.tar"
        (self.folder / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.done.append({"file": file, "sha256": sha256, "bytes": len(content), "photos": self.images})
        self._begin()
