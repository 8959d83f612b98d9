"""Picture files in; what a server says about them, as a table or as JSON, out."""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.text import Text

from serving.channel_options import to_credentials
from serving.client import MAX_MESSAGE_BYTES, Classified, Client, ClientError, Prediction
from serving.commands import to_resource

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
"""What is taken from a folder; a file that is named itself may be called anything."""
FILES_PER_REQUEST = 16
MAX_FILE_BYTES = MAX_MESSAGE_BYTES - 4096
"""The rest of a request needs a little room too."""
BYTES_PER_REQUEST = MAX_MESSAGE_BYTES // 2
REQUESTS_IN_FLIGHT = 4
ATTEMPTS = 6
"""How often a request is sent while the server says that its queue is full."""
CLASSES_ON_TERMINAL = 3
BAR_WIDTH = 20
MAX_NAME_WIDTH = 60


_Content = bytes | Exception
_Outcome = Prediction | Exception


@dataclass(frozen=True)
class FileResult:
    """What became of one file."""

    file: Path
    model: str
    """The version that answered; empty if none did."""
    outcome: _Outcome
    """The prediction, or why there is none: ClientError, OSError or ValueError."""


def predict(arguments: argparse.Namespace) -> int:
    """Classify files, and print each one's classes as they come; 1 if one of them failed."""
    files = _files(arguments.files)
    if not files:
        print("pawserve: the folder holds no pictures", file=sys.stderr)
        return 1
    width = min(MAX_NAME_WIDTH, max((len(str(file)) for file in files), default=0))
    console = Console(highlight=False)
    results = []
    with Client(arguments.server, timeout_s=arguments.timeout, credentials=to_credentials(arguments)) as client:
        asking = Asking(
            client, to_resource(arguments.model), arguments.views, arguments.top_k, arguments.label, arguments.adaptive
        )
        for result in asking.ask(files):
            results.append(result)
            if not arguments.json:
                console.print(_line(result, width, arguments.top_k or CLASSES_ON_TERMINAL), soft_wrap=True)
    if arguments.json:
        model = next((result.model for result in results if result.model), None)
        document = {"model": model, "results": list(map(_to_dict, results))}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    elif len(results) == 1 and isinstance(results[0].outcome, Prediction) and not arguments.label:
        print(f"when you know what it is: python -m serving label {results[0].outcome.token} CLASS")
    return int(any(not isinstance(result.outcome, Prediction) for result in results))


class Asking:
    """Sends many files in requests of moderate size, a few of them in flight."""

    def __init__(
        self, client: Client, model: str, views: int | None, top_k: int | None, label: str, adaptive: bool
    ) -> None:
        self._client = client
        self._model = model
        self._views = views
        self._top_k = top_k
        self._label = label
        self._adaptive = adaptive
        self._stopped = Event()

    def ask(self, files: Iterable[Path]) -> Iterator[FileResult]:
        """What became of each file, in their order.

        Raises:
            ClientError: if the very first request fails as a whole, since the others would fail like it; later ones
                are errors of their files.
        """
        waiting: deque[tuple[list[tuple[Path, _Content]], Future[Classified | ClientError]]] = deque()
        pool = ThreadPoolExecutor(REQUESTS_IN_FLIGHT)
        requests = _requests(files)
        answered = False
        try:
            while True:
                while len(waiting) < REQUESTS_IN_FLIGHT and (request := next(requests, None)):
                    waiting.append((request, pool.submit(self._send, request)))
                if not waiting:
                    return
                request, future = waiting.popleft()
                answer = future.result()
                if isinstance(answer, ClientError) and not answered:
                    raise answer
                answered |= isinstance(answer, Classified) and bool(answer.model)
                yield from _match(request, answer)
        finally:
            self._stopped.set()
            self._client.close()  # ends calls that are still waiting, if we are left early
            pool.shutdown(cancel_futures=True)

    def _send(self, request: list[tuple[Path, _Content]]) -> Classified | ClientError:
        images = [content for _, content in request if isinstance(content, bytes)]
        if not images:
            return Classified("", ())
        labels = [self._label] * len(images)
        for attempt in range(ATTEMPTS):
            try:
                return self._client.classify(
                    images,
                    model=self._model,
                    views=self._views,
                    top_k=self._top_k,
                    labels=labels,
                    adaptive=self._adaptive,
                )
            except ClientError as error:
                failure = error
                if error.retry_after_s is None or self._stopped.wait(error.retry_after_s * 2**attempt):
                    break
        return failure


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those pictures that are in the folders."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        else:
            files.append(path)
    return files


def _requests(files: Iterable[Path]) -> Iterator[list[tuple[Path, _Content]]]:
    """The files' contents, or why they cannot be read, in groups of moderate size."""
    group: list[tuple[Path, _Content]] = []
    size = 0
    for file in files:
        content = _read(file)
        length = len(content) if isinstance(content, bytes) else 0
        if group and (len(group) == FILES_PER_REQUEST or size + length > BYTES_PER_REQUEST):
            yield group
            group, size = [], 0
        group.append((file, content))
        size += length
    if group:
        yield group


def _read(file: Path) -> _Content:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return error
    if len(content) > MAX_FILE_BYTES:
        return ValueError(f"the file has more than {MAX_FILE_BYTES:,} bytes, the most that fits into a request")
    return content


def _match(request: list[tuple[Path, _Content]], answer: Classified | ClientError) -> Iterator[FileResult]:
    outcomes = iter(answer.results if isinstance(answer, Classified) else ())
    for file, content in request:
        if isinstance(content, Exception):
            yield FileResult(file, "", content)
        elif isinstance(answer, ClientError):
            yield FileResult(file, "", answer)
        else:
            yield FileResult(file, answer.model, next(outcomes))


def _describe(error: Exception) -> tuple[str, str]:
    """A stable reason, and a message for people."""
    match error:
        case ClientError():
            return error.reason or error.code.name, error.message
        case OSError():
            return "UNREADABLE", f"the file cannot be read: {error.strerror}"
    return "TOO_LARGE", str(error)


def _to_dict(result: FileResult) -> dict[str, Any]:
    if isinstance(result.outcome, Prediction):
        classes = [{"label": label, "probability": probability} for label, probability in result.outcome.classes]
        return {
            "file": str(result.file),
            "classes": classes,
            "views": result.outcome.views,
            "token": result.outcome.token,
        }
    reason, message = _describe(result.outcome)
    return {"file": str(result.file), "error": {"reason": reason, "message": message}}


def _line(result: FileResult, width: int, classes: int) -> Text:
    line = Text(f"{result.file!s:<{width}}  ")
    if not isinstance(result.outcome, Prediction):
        return line.append(_describe(result.outcome)[1], style="red")
    (label, probability), *others = result.outcome.classes[:classes]
    filled = round(probability * BAR_WIDTH)
    line.append("█" * filled, style="cyan").append("░" * (BAR_WIDTH - filled), style="dim")
    line.append(f" {probability:6.1%} ").append(label, style="bold")
    if others:
        line.append("".join(f"   {label} {probability:.1%}" for label, probability in others), style="dim")
    return line
