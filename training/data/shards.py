"""A data set packed into tar files that can lie in object storage.

Shards have the WebDataset format: `train-000000.tar`, `valid-000000.tar` and so on, a member for each image.
`shards.json` beside them says what they hold: classes, and for each image its class, the SHA-256 of its content and
where it lies. So the images of a set are known before one of them is read, and a shard is checked as a whole before
anything in it is used. The shards may lie elsewhere: then the index has their `url`.
"""

import hashlib
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from serving.image.decode import Limits
from training.data.images import LabelledImage, Split
from training.data.layout import TRAIN, VALID, DataError

INDEX_FILE = "shards.json"
INDEX_FORMAT = 1
MAX_SHARD_BYTES = 2 * 2**30
"""A shard is held in memory as a whole."""
SHARD_LIMITS = Limits(max_bytes=MAX_SHARD_BYTES, max_pixels=1_000_000_000, pixels_at_once=50_000_000)
"""The limits of the user were applied when the shards were written."""
TIMEOUT_S = 60.0
ATTEMPTS, RETRY_DELAY_S = 10, 2.0
TRANSIENT = {408, 429, 500, 502, 503, 504}
"""HTTP statuses after which a request is repeated."""
_SHARD = re.compile(rf"({TRAIN}|{VALID})-\d{{6}}\.tar")
_MEMBER = re.compile(r"\d{9}\.[a-z0-9]{1,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a shard."""

    label: int
    sha256: str
    offset: int
    """Start of its content, in bytes from the shard's beginning."""
    size: int
    """Size in bytes."""
    source: str
    """Its path in the folder that the shards were made of."""


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    file: str
    sha256: str
    size: int
    """Size in bytes."""
    members: dict[str, Member]
    """Members by name."""


@dataclass(frozen=True)
class ShardIndex:
    """The content of `shards.json`."""

    folder: Path
    classes: tuple[str, ...]
    shards: dict[str, Shard]
    """Shards by file name."""
    url: str | None
    """URL of shards that are not in the folder; ends with a slash."""

    def split(self) -> Split:
        """The images in the order in which the folder that they come from lists them."""
        parts: dict[str, list[tuple[int, tuple[str, ...], LabelledImage]]] = {TRAIN: [], VALID: []}
        for shard in self.shards.values():
            for name, member in shard.members.items():
                image = self.image(f"{shard.file}/{name}", member.label, bytes.fromhex(member.sha256))
                parts[shard.file[: len(TRAIN)]].append((member.label, Path(member.source).parts, image))
        train, valid = ([image for *_, image in sorted(part, key=lambda row: row[:2])] for part in parts.values())
        return Split(self.classes, train, valid)

    def image(self, path: str, label: int, sha256: bytes) -> "ShardImage":
        """The image at SHARD/MEMBER."""
        return ShardImage(self.folder / path, label, sha256, SHARD_LIMITS, index=self)

    def read_shard(self, file: str) -> dict[str, bytes]:
        """The content of every image in a shard, by name.

        Raises:
            DataError: if it cannot be read, or is not the one that the index describes.
        """
        shard, place = self.shards[file], f"{self.url or self.folder}/{file}"
        try:
            content = self._read(file, 0, shard.size + 1)
        except OSError as error:
            raise DataError(f"shard {place} cannot be read: {error.strerror or error}") from error
        if len(content) != shard.size or hashlib.sha256(content).hexdigest() != shard.sha256:
            raise DataError(
                f"shard {place} is not the one that {self.folder / INDEX_FILE} describes ({len(content):,} bytes read "
                f"of {shard.size:,}): copy it again, or make the shards anew"
            )
        images = {name: content[each.offset : each.offset + each.size] for name, each in shard.members.items()}
        for name, image in images.items():
            if hashlib.sha256(image).hexdigest() != shard.members[name].sha256:
                raise DataError(f"shard {place} does not hold the image {name} where {INDEX_FILE} says")
        return images

    def read_image(self, file: str, name: str) -> bytes:
        """The content of one image, without the rest of its shard.

        Raises:
            OSError: if it cannot be read.
        """
        try:
            member = self.shards[file].members[name]
        except KeyError as error:
            raise FileNotFoundError(2, f"{INDEX_FILE} has no such image", str(self.folder / file / name)) from error
        return self._read(file, member.offset, member.size)

    def _read(self, file: str, offset: int, size: int) -> bytes:
        """Read at most `size` bytes of a shard, from the folder or from the URL."""
        local = self.folder / file
        if self.url is not None and not local.is_file():
            return _fetch(self.url + file, offset, size)
        with local.open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)


@dataclass(frozen=True, slots=True)
class ShardImage(LabelledImage):
    """An image in a shard; its path is FOLDER/SHARD/MEMBER."""

    index: ShardIndex = field(kw_only=True, repr=False, compare=False)

    def _content(self) -> bytes:
        return self.index.read_image(self.path.parent.name, self.path.name)


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds shards."""
    return (folder / INDEX_FILE).is_file()


def image_at(folder: Path, path: str, label: int, sha256: bytes, limits: Limits) -> LabelledImage:
    """The image at a path below a data folder, which may hold shards."""
    if is_sharded(folder):
        return load_index(folder).image(path, label, sha256)
    return LabelledImage(folder / path, label, sha256, limits)


def contents(images: Sequence[LabelledImage]) -> Iterator[tuple[LabelledImage, Callable[[], bytes]]]:
    """Each image with a function that reads it; adjacent images of one shard are read together, on first use.

    Raises:
        DataError: if a shard cannot be read, or is another one.
    """
    for parent, group in groupby(images, key=lambda image: image.path.parent):
        together = list(group)
        first = together[0]
        held = first.index.read_shard(parent.name) if isinstance(first, ShardImage) else None
        for image in together:
            yield image, image.read if held is None else partial(held.pop, image.path.name)


@lru_cache(maxsize=4)
def load_index(folder: Path) -> ShardIndex:
    """Read and check `shards.json`.

    Raises:
        DataError: if it cannot be read, or is damaged.
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
        ValueError: for any other scheme, such as `file:`.
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
            and member.size >= 0
            and 0 <= member.offset <= size - member.size
        ):
            raise ValueError(f"image {name!r} of {file}: its name, class, SHA-256, size or place is out of range")
        members[name] = member
    if len(members) != len(fields["photos"]):
        raise ValueError(f"{file} has two images of one name")
    return Shard(file, fields["sha256"], size, members)


def _fetch(url: str, offset: int, size: int) -> bytes:
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + size - 1}"})
    for left in reversed(range(ATTEMPTS)):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                if response.status != 206:  # this server ignores ranges and sends the shard from its beginning
                    response.read(offset)
                content: bytes = response.read(size)
                return content
        except HTTPError as error:
            if error.code not in TRANSIENT or not left:
                raise
        except (TimeoutError, ConnectionError, HTTPException) as error:
            if not left:
                raise OSError(f"{type(error).__name__} {error}") from error
        time.sleep(RETRY_DELAY_S)
    raise AssertionError("the last attempt returns or raises")
