"""Writes a folder of images as shards: tar files in random order, and their index."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.image.decode import OWN_IMAGE_LIMITS, Limits
from serving.image.folders import Skipped
from serving.system.files import filling
from training.console import progress, say
from training.data.image_files import decodable, read_images
from training.data.images import LabelledImage, Split
from training.data.layout import TRAIN, VALID
from training.data.shards import INDEX_FILE, INDEX_FORMAT, checked_url

HEADER = tarfile.BLOCKSIZE


def write_shards(
    data: Path,
    out: Path,
    *,
    shard_bytes: int,
    valid_fraction: float,
    seed: int,
    url: str | None = None,
    limits: Limits = OWN_IMAGE_LIMITS,
) -> tuple[Split, list[Skipped], int]:
    """Write a folder of shards, whole or not at all.

    Args:
        data: as `training.data.images.read_images` takes it.
        out: must not exist, or be empty.
        shard_bytes: size of a shard, about: it may be one image more.
        valid_fraction, seed: what is held out where there is no validation split; the seed also gives the order.
        url: where the shards will be read from, if not from beside the index.
        limits: larger images are left out.

    Returns:
        The split, the files and folders left out, and the number of shards.

    Raises:
        DataError, ValueError: with what to change.
        OSError: if something cannot be written; nothing is left behind.
    """
    url = None if url is None else checked_url(url)
    shards: list[dict[str, Any]] = []
    done = 0
    with filling(out) as folder:
        with progress("reading images") as on_progress:
            images = read_images(data, limits=limits, targets=(out.absolute(),), on_progress=on_progress)
        for note in images.notes:
            say(note)
        _, unreadable = decodable(images.train + (images.valid or []))
        split = images.split(valid_fraction=valid_fraction, seed=seed, unreadable=unreadable)
        total = len(split.train) + len(split.valid)
        with progress("writing shards") as on_progress:
            for part, of_part in ((TRAIN, split.train), (VALID, split.valid)):
                writer = _ShardWriter(folder, part, data, shard_bytes)
                for row in np.random.default_rng([seed, part == VALID]).permutation(len(of_part)):
                    writer.add(of_part[row])
                    done += 1
                    on_progress(done, total)
                writer.write()
                shards += writer.shards
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
    return split, images.skipped + unreadable, len(shards)


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

    def add(self, image: LabelledImage) -> None:
        """Append an image to the shard, named by its number; write a full shard first."""
        content = image.read()
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
