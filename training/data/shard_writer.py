"""Writes a folder of images as shards: tar files in random order, and their index."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.image.decode import decode
from serving.system.cpus import available_cpus
from serving.system.files import filling
from training.console import progress
from training.data.images import TRAIN, VALID, LabelledImage, Skipped, Split, or_reason, read_split
from training.data.shards import INDEX_FILE, INDEX_FORMAT, checked_url

READ_AHEAD = 64
"""Images read before they are written."""
HEADER = tarfile.BLOCKSIZE


def write_shards(
    data: Path, out: Path, *, shard_bytes: int, valid_fraction: float, seed: int, url: str | None = None
) -> tuple[Split, list[Skipped], int]:
    """Write a folder of shards, whole or not at all.

    Args:
        data: as `training.data.images.read_split` takes it.
        out: must not exist, or be empty.
        shard_bytes: size of a shard, about: it may be one image more.
        valid_fraction, seed: what is held out where there is no `valid` folder; the seed also gives the order.
        url: where the shards will be read from, if not from beside the index.

    Returns:
        The split, the files left out because they are no images, and the number of shards.

    Raises:
        DataError, ValueError: with what to change.
        OSError: if something cannot be written; nothing is left behind.
    """
    url = None if url is None else checked_url(url)
    kept: dict[str, list[LabelledImage]] = {}
    shards: list[dict[str, Any]] = []
    done = 0
    with filling(out) as folder:
        with progress("reading images") as on_progress:
            split, skipped = read_split(data, valid_fraction=valid_fraction, seed=seed, on_progress=on_progress)
        total = len(split.train) + len(split.valid)
        with progress("writing shards") as on_progress:
            for part, images in ((TRAIN, split.train), (VALID, split.valid)):
                order = np.random.default_rng([seed, part == VALID]).permutation(len(images))
                writer = _ShardWriter(folder, part, data, shard_bytes)
                unreadable = set()
                for image, content in _read([images[row] for row in order]):
                    if isinstance(content, str):
                        skipped.append(Skipped(image.path, content))
                        unreadable.add(image.path)
                    else:
                        writer.add(image, content)
                    done += 1
                    on_progress(done, total)
                writer.write()
                shards += writer.shards
                kept[part] = [image for image in images if image.path not in unreadable]
        split = Split(split.classes, kept[TRAIN], kept[VALID])
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
    return split, skipped, len(shards)


def _read(images: Sequence[LabelledImage]) -> Iterator[tuple[LabelledImage, bytes | str]]:
    """Each image with its content or, if it cannot be decoded, the reason; a few are read ahead."""

    def decodable_content(image: LabelledImage) -> bytes:
        content = image.read()
        decode(content, min_side=1)
        return content

    with ThreadPoolExecutor(available_cpus()) as pool:
        for at in range(0, len(images), READ_AHEAD):
            some = images[at : at + READ_AHEAD]
            yield from zip(some, pool.map(lambda image: or_reason(lambda: decodable_content(image)), some), strict=True)


@dataclass
class _ShardWriter:
    """Writes the shards of one part, one after another."""

    folder: Path
    part: str
    data: Path
    shard_bytes: int
    shards: list[dict[str, Any]] = field(default_factory=list)
    """Their entries in the index."""
    count: int = 0
    members: list[tuple[str, int, str, int, int, str]] = field(default_factory=list)
    buffer: io.BytesIO = field(default_factory=io.BytesIO)

    def add(self, image: LabelledImage, content: bytes) -> None:
        """Append an image to the shard, named by its number; write a full shard first."""
        if self.members and self.buffer.tell() + len(content) > self.shard_bytes:
            self.write()
        suffix = image.path.suffix[1:].lower()
        # neither its name nor its times: the same images and seed make the same bytes
        entry = tarfile.TarInfo(f"{self.count:09d}.{suffix if suffix.isascii() and suffix.isalnum() else 'img'}"[:18])
        entry.size = len(content)
        offset = self.buffer.tell() + HEADER
        source = image.path.relative_to(self.data).as_posix()
        self.members.append((entry.name, image.label, image.sha256.hex(), offset, len(content), source))
        self.buffer.write(entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE))
        self.count += 1

    def write(self) -> None:
        """Write the shard, if there is an image in it, and begin the next."""
        if not self.members:
            return
        end = self.buffer.tell() + 2 * tarfile.BLOCKSIZE
        content = self.buffer.getvalue() + bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE)
        file = f"{self.part}-{len(self.shards):06d}.tar"
        (self.folder / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.shards.append({"file": file, "sha256": sha256, "bytes": len(content), "photos": self.members})
        self.members, self.buffer = [], io.BytesIO()
