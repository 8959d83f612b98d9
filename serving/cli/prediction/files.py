"""Classification of image files by a server, over streams."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from serving.client import Client, ClientError, NamedImage, Prediction
from serving.client.channel import MAX_MESSAGE_BYTES
from serving.image import folders
from serving.image.folders import Skipped
from serving.image.kinds import supported_format
from serving.tokens.tokens import check_reference

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".heic", ".heif", ".hif", ".avif"),
    *(".jxl", ".jp2"),  # not supported, which the server says
}
"""Files of a folder that are classified whatever they begin with: an image in an unsupported format must not be missed.
A file that is named itself may have any suffix."""
SIGNATURE_BYTES = 16
MAX_FILE_BYTES = MAX_MESSAGE_BYTES - 4096
"""Leaves space for the other fields of a request."""
LABELS_PER_REQUEST = 64


@dataclass(frozen=True)
class FileResult:
    """The result of one file."""

    file: Path
    model: str
    """The version that answered; empty if none did."""
    outcome: Prediction | ClientError | OSError | ValueError
    """The prediction, or the error."""
    reference: str = ""
    """The file's name for the server and in exported labels: its path below the folder that was given, or as given."""


def find_references(given: Sequence[Path], files: Sequence[Path]) -> dict[Path, str]:
    """The reference of each file: its path below the folder that was given, or the path as it was given itself.

    Files whose path cannot be a reference, because it is too long, not UTF-8 or has control characters, are left out.
    """
    named = set(given)
    folders = [path for path in given if path.is_dir()]
    references: dict[Path, str] = {}
    for file in files:
        folder = None if file in named else next(each for each in folders if file.is_relative_to(each))
        reference = (file.relative_to(folder) if folder else file).as_posix()
        with suppress(ValueError):
            check_reference(reference)
            references[file] = reference
    return references


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[Skipped]]:
    """The files, and the images in the folders, in a fixed order; and what is left out of the folders.

    An image is known by its suffix or its first bytes. A dangling link with such a suffix is reported as UNREADABLE.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = folders.find_files(path)
        unreadable = [each for each in found.skipped if each.path.is_symlink() and not each.path.is_dir()]
        broken = {each.path for each in unreadable if each.path.suffix.lower() in SUFFIXES}
        reasons = {file: _why_no_image(file) for file in found.files}
        files += sorted([*broken, *(file for file, reason in reasons.items() if not reason)])
        skipped += [each for each in found.skipped if each.path not in broken]
        skipped += [Skipped(file, reason) for file, reason in reasons.items() if reason]
    return files, skipped


def _why_no_image(file: Path) -> str:
    """Why a file in a folder is not classified; empty if it is."""
    if file.suffix.lower() in SUFFIXES:
        return ""
    try:
        with file.open("rb") as stream:
            head = stream.read(SIGNATURE_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if supported_format(head) else "not an image, by its suffix and its first bytes"


def classify_files(
    client: Client, files: Iterable[Path], *, references: Mapping[Path, str], label: str, streams: int, **options: Any
) -> Iterator[FileResult]:
    """Classify files. Results come as soon as they are known, in any order.

    Args:
        client: a client of the server.
        files: files to read and send.
        references: the name that the server gets of each file, if there is one.
        label: the label of all files, "" if unknown. It is recorded with the prediction's token, so that an image that
            had to be sent twice is counted once. If it is not recorded, the result is that error.
        streams: one for each server.
        options: model, views, top_k and adaptive, as for `Client.classify_many`.

    Raises:
        ClientError: as `Client.classify_many` does.
    """
    sent: list[Path] = []
    unread: SimpleQueue[FileResult] = SimpleQueue()

    def contents() -> Iterator[NamedImage]:  # runs in another thread
        for file in files:
            try:
                content = read_file(file)
            except (OSError, ValueError) as error:
                unread.put(FileResult(file, "", error))
            else:
                sent.append(file)
                yield NamedImage(content, references.get(file, ""))

    def results() -> Iterator[FileResult]:
        for each in client.classify_many(contents(), streams=streams, in_flight=64 * streams, **options):
            yield from _drain(unread)
            file = sent[each.index]
            yield FileResult(file, each.model, each.result, references.get(file, ""))
        yield from _drain(unread)

    return _record_labels(client, results(), label) if label else results()


def in_order(files: Sequence[Path], results: Iterable[FileResult]) -> Iterator[FileResult]:
    """The results in the order of the files, each as soon as those before it are known."""
    positions: dict[Path, deque[int]] = {}
    for position, file in enumerate(files):
        positions.setdefault(file, deque()).append(position)
    waiting: dict[int, FileResult] = {}
    following = 0
    for result in results:
        waiting[positions[result.file].popleft()] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def describe(error: Exception) -> tuple[str, str]:
    """The stable reason and the message of an error."""
    match error:
        case ClientError():
            return error.reason or error.code.name, error.message
        case OSError():
            return "UNREADABLE", f"the file cannot be read: {error.strerror}"
    return "TOO_LARGE", str(error)


def read_file(file: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has more than `most` bytes; the default is what fits into a request.
    """
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"the file has more than {most:,} bytes, the most that is read or fits into a request")
    return content


def _drain(queue: "SimpleQueue[FileResult]") -> Iterator[FileResult]:
    while not queue.empty():  # nobody else takes from it
        yield queue.get()


def _record_labels(client: Client, results: Iterator[FileResult], label: str) -> Iterator[FileResult]:
    """Record the label of each prediction; the results, or the errors of labels that were not recorded."""
    while group := list(islice(results, LABELS_PER_REQUEST)):
        yield from _record_group(client, group, label)


def _record_group(client: Client, group: list[FileResult], label: str) -> Iterator[FileResult]:
    tokens = [(result.outcome.token, label) for result in group if isinstance(result.outcome, Prediction)]
    recorded = iter(client.record_labels(tokens) if tokens else [])
    for result in group:
        outcome = next(recorded) if isinstance(result.outcome, Prediction) else None
        yield replace(result, outcome=outcome) if isinstance(outcome, ClientError) else result
