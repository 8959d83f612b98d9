"""A folder of shards in; its images, and what is in them, out.

Shards are tar files in the order that the WebDataset format reads: `train-000000.tar`, `valid-000000.tar` and so on,
a member for each image. `shards.json` beside them says what they hold: classes, and for each image its class, the
SHA-256 of its contents and where it lies. So the images of a set are known before one of them is read, and a shard is
checked as a whole before anything in it is used. The shards may lie elsewhere: then the index has their `url`.
"""

import hashlib
import io
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import webdataset
from webdataset.tariterators import tar_file_iterator

from serving.image.decode import DEFAULT_LIMITS
from training.data.images import TRAIN, VALID, DataError, LabelledImage, Split

INDEX_FILE = "shards.json"
INDEX_FORMAT = 1
MAX_SHARD_BYTES = 2 * 2**30
"""A shard is held in memory as a whole."""
TIMEOUT_S = 60.0
_SHARD = re.compile(rf"({TRAIN}|{VALID})-\d{{6}}\.tar")
_MEMBER = re.compile(r"\d{9}\.[a-z0-9]{1,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Member:
    """A image in a shard."""

    label: int
    sha256: str
    offset: int
    """Where its contents begin, in bytes from the shard's beginning."""
    size: int
    """In bytes."""
    source: str
    """What it was called in the folder that the shards were made of."""


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    file: str
    sha256: str
    size: int
    """In bytes."""
    members: dict[str, Member]
    """By name."""


@dataclass(frozen=True)
class ShardIndex:
    """What `shards.json` says."""

    folder: Path
    classes: tuple[str, ...]
    shards: dict[str, Shard]
    """By file name."""
    url: str | None
    """Where shards are that are not in the folder; ends with a slash."""

    def split(self) -> Split:
        """The images in the order in which the folder that they come from lists them."""
        sides: dict[str, list[tuple[int, tuple[str, ...], LabelledImage]]] = {TRAIN: [], VALID: []}
        for shard in self.shards.values():
            for name, member in shard.members.items():
                image = LabelledImage(self.folder / shard.file / name, member.label, bytes.fromhex(member.sha256))
                sides[shard.file[: len(TRAIN)]].append((member.label, Path(member.source).parts, image))
        train, valid = ([image for *_, image in sorted(side, key=lambda row: row[:2])] for side in sides.values())
        return Split(self.classes, train, valid)

    def read_shard(self, file: str) -> dict[str, bytes]:
        """The contents of every image in a shard, by name, read from one end to the other.

        Raises:
            DataError: if it cannot be read, or is not the one that the index describes.
        """
        shard, place = self.shards[file], self._place(file)
        if place.startswith("http") and shutil.which("curl") is None:
            raise DataError(f"shard {place} cannot be read: webdataset reads URLs with curl, which is not installed")
        try:
            with webdataset.gopen(place) as stream:
                content: bytes = stream.read(shard.size + 1)
        except OSError as error:
            # webdataset's words for curl's failure begin with the whole command
            reason = error.strerror or f"curl ended with {str(error).rpartition('): ')[2]}"
            raise DataError(f"shard {place} cannot be read: {reason}") from error
        if len(content) != shard.size or hashlib.sha256(content).hexdigest() != shard.sha256:
            raise DataError(
                f"shard {place} is not the one that {self.folder / INDEX_FILE} describes ({len(content):,} bytes read "
                f"of {shard.size:,}): copy it again, or make the shards anew"
            )
        _check_members(shard, content, place)
        return {sample["fname"]: sample["data"] for sample in tar_file_iterator(io.BytesIO(content))}

    def read_image(self, file: str, name: str) -> bytes:
        """The contents of one image, without the rest of its shard.

        Raises:
            OSError: if it cannot be read.
        """
        try:
            member = self.shards[file].members[name]
        except KeyError as error:
            raise FileNotFoundError(2, f"{INDEX_FILE} has no such image", str(self.folder / file / name)) from error
        local = self.folder / file
        if local.is_file() or self.url is None:
            with local.open("rb") as tar:
                tar.seek(member.offset)
                return tar.read(member.size)
        last = member.offset + member.size - 1
        request = urllib.request.Request(self.url + file, headers={"Range": f"bytes={member.offset}-{last}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if answer.status != 206:  # it knows no ranges, and sends the shard from its beginning
                answer.read(member.offset)
            content: bytes = answer.read(member.size)
        return content

    def _place(self, file: str) -> str:
        local = self.folder / file
        return str(local) if self.url is None or local.is_file() else self.url + file


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds shards."""
    return (folder / INDEX_FILE).is_file()


def index_of(image: LabelledImage) -> ShardIndex | None:
    """The index of the shards that an image lies in; None for one that is a file of its own."""
    folder = image.path.parent.parent
    return load_index(folder) if _SHARD.fullmatch(image.path.parent.name) and is_sharded(folder) else None


def contents(images: Sequence[LabelledImage]) -> Iterator[tuple[LabelledImage, Callable[[], bytes]]]:
    """Each image with what reads it; those of a shard that follow one another are read together, when their turn comes.

    Raises:
        DataError: if a shard cannot be read, or is another one.
    """
    for parent, group in groupby(images, key=lambda image: image.path.parent):
        together = list(group)
        index = index_of(together[0])
        held = {} if index is None else index.read_shard(parent.name)
        for image in together:
            yield image, image.read if index is None else partial(held.pop, image.path.name)


@lru_cache(maxsize=4)
def load_index(folder: Path) -> ShardIndex:
    """Read and check `shards.json`.

    Raises:
        DataError: if it cannot be read, or does not say what it should.
    """
    path = folder / INDEX_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != INDEX_FORMAT:
            raise ValueError(f"its format is {facts['format']}; this pawserve reads format {INDEX_FORMAT}")
        classes = tuple(map(str, facts["classes"]))
        if len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        shards = {shard.file: shard for shard in (_shard(fields, len(classes)) for fields in facts["shards"])}
        index = ShardIndex(folder, classes, shards, None if facts["url"] is None else checked_url(facts["url"]))
        split = index.split()
        if facts["counts"] != {TRAIN: len(split.train), VALID: len(split.valid)}:
            raise ValueError(f"it counts {facts['counts']} images, and lists {len(split.train)} and {len(split.valid)}")
        return index
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} describes no shards: {error if str(error) else type(error).__name__}") from error


def checked_url(url: str) -> str:
    """A URL that shards may be read from, with a slash at its end.

    Raises:
        ValueError: for any other scheme; a `pipe:` would run its words as a command.
    """
    if not re.match(r"https?://[^/\s]+(/|$)", url):
        raise ValueError(f"the shards' url is {url!r}; it must begin with https:// or http:// and a host")
    return url if url.endswith("/") else url + "/"


def _shard(fields: dict[str, Any], classes: int) -> Shard:
    file, size = str(fields["file"]), int(fields["bytes"])
    if not _SHARD.fullmatch(file) or not 0 <= size <= MAX_SHARD_BYTES or not _SHA256.fullmatch(fields["sha256"]):
        raise ValueError(
            f"shard {file!r} of {size:,} bytes: a name like train-000000.tar, a SHA-256 and at most "
            f"{MAX_SHARD_BYTES:,} bytes are needed"
        )
    members: dict[str, Member] = {}
    for name, *rest in fields["photos"]:
        member = Member(*rest)
        if not (
            _MEMBER.fullmatch(name)
            and 0 <= member.label < classes
            and _SHA256.fullmatch(member.sha256)
            and 0 <= member.size <= DEFAULT_LIMITS.max_bytes
            and 0 <= member.offset <= size - member.size
        ):
            raise ValueError(f"image {name!r} of {file}: its name, class, SHA-256, size or place is out of range")
        members[name] = member
    if len(members) != len(fields["photos"]):
        raise ValueError(f"{file} has two images of one name")
    return Shard(file, fields["sha256"], size, members)


def _check_members(shard: Shard, content: bytes, place: str) -> None:
    """That a tar file is plain, and has exactly the members listed: before one of them is taken out."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            found = {entry.name: (entry.offset_data, entry.size) for entry in tar if entry.type == tarfile.REGTYPE}
            count = len(tar.getmembers())
    except tarfile.TarError as error:
        raise DataError(f"shard {place} is no tar file: {error}") from error
    listed = {name: (member.offset, member.size) for name, member in shard.members.items()}
    if found != listed or count != len(listed):
        odd = sorted(set(found.items()) ^ set(listed.items()))
        raise DataError(f"shard {place} does not hold the images that {INDEX_FILE} lists; the first is {odd[:1]}")
