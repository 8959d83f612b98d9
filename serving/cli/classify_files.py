"""Files in; what a server says about each of them out, as fast as it can."""

import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from serving.client import Client, ClientError, Prediction
from serving.client.channel import MAX_MESSAGE_BYTES

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
"""What is taken from a folder; a file that is named itself may be called anything."""
MAX_FILE_BYTES = MAX_MESSAGE_BYTES - 4096
"""The rest of a request needs a little room too."""
LABELS_PER_REQUEST = 64


@dataclass(frozen=True)
class FileResult:
    """What became of one file."""

    file: Path
    model: str
    """The version that answered; empty if none did."""
    outcome: Prediction | ClientError | OSError | ValueError
    """The prediction, or why there is none."""


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those pictures that are in the folders, in a fixed order."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and _is_file(file))
        else:
            files.append(path)
    return files


def _is_file(path: Path) -> bool:
    """Not a folder, nor a pipe, which would be read for ever; a link to nothing is one, to be told as UNREADABLE."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def ask(client: Client, files: Iterable[Path], *, label: str, streams: int, **question: Any) -> Iterator[FileResult]:
    """What becomes of each file, as soon as it is known; in what order, the server decides.

    Args:
        label: what all of them show, to be recorded; "" if that is not known. It is recorded by the prediction's token,
            so that a picture that had to be sent twice is not counted twice.
        streams: one for each server.
        question: model, views, top_k and adaptive, as for `Client.classify_many`.

    Raises:
        ClientError: as `Client.classify_many` does.
    """
    sent: list[Path] = []
    unread: SimpleQueue[FileResult] = SimpleQueue()

    def contents() -> Iterator[bytes]:  # runs in another thread
        for file in files:
            try:
                content = _read(file)
            except (OSError, ValueError) as error:
                unread.put(FileResult(file, "", error))
            else:
                sent.append(file)
                yield content

    def results() -> Iterator[FileResult]:
        for answer in client.classify_many(contents(), streams=streams, in_flight=64 * streams, **question):
            yield from _drain(unread)
            yield FileResult(sent[answer.index], answer.model, answer.result)
        yield from _drain(unread)

    return _labelled(client, results(), label) if label else results()


def in_order(files: Sequence[Path], results: Iterable[FileResult]) -> Iterator[FileResult]:
    """The results in the order of the files, each as soon as all before it are known."""
    places: dict[Path, deque[int]] = {}
    for place, file in enumerate(files):
        places.setdefault(file, deque()).append(place)
    waiting: dict[int, FileResult] = {}
    following = 0
    for result in results:
        waiting[places[result.file].popleft()] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def describe(error: Exception) -> tuple[str, str]:
    """A stable reason, and a message for people."""
    match error:
        case ClientError():
            return error.reason or error.code.name, error.message
        case OSError():
            return "UNREADABLE", f"the file cannot be read: {error.strerror}"
    return "TOO_LARGE", str(error)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"the file has more than {MAX_FILE_BYTES:,} bytes, the most that fits into a request")
    return content


def _drain(queue: "SimpleQueue[FileResult]") -> Iterator[FileResult]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def _labelled(client: Client, results: Iterator[FileResult], label: str) -> Iterator[FileResult]:
    """The results, after their predictions were labelled; one whose label was refused has that error."""
    group: list[FileResult] = []
    for result in results:
        group.append(result)
        if len(group) == LABELS_PER_REQUEST:
            yield from _label(client, group, label)
            group = []
    yield from _label(client, group, label)


def _label(client: Client, group: list[FileResult], label: str) -> Iterator[FileResult]:
    tokens = [(result.outcome.token, label) for result in group if isinstance(result.outcome, Prediction)]
    recorded = iter(client.record_labels(tokens) if tokens else [])
    for result in group:
        outcome = next(recorded) if isinstance(result.outcome, Prediction) else None
        yield FileResult(result.file, result.model, outcome) if isinstance(outcome, ClientError) else result
