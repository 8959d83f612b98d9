"""Bodies of requests, with every limit checked before what it limits is read."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from serving.api.classification import RETRY_S
from serving.api.errors import ApiError, Code, invalid
from serving.api.in_flight import BytesInFlight
from serving.web.compression import WINDOW_BITS

ENCODINGS = (*WINDOW_BITS, "identity")
"""Content encodings of requests."""
LARGE_BODY_BYTES = 4 * 2**20
"""Work on larger bodies takes milliseconds, in which the event loop would answer no other request."""
T = TypeVar("T")


@dataclass(frozen=True)
class BodyLimits:
    """Limits of bodies."""

    max_bytes: int
    """Limit of one body, as sent and uncompressed."""
    in_memory: BytesInFlight
    """Bytes of all bodies, of which each client has a quota."""


@asynccontextmanager
async def read_body(request: Request, limits: BodyLimits) -> AsyncIterator[bytes]:
    """Read a request's body, uncompressed; its bytes count as in memory within the context.

    Raises:
        ApiError: if it is too large, its encoding is not supported or damaged, or too many bodies are in memory.
        ClientDisconnect: if the client leaves.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        message = f"the body has Content-Encoding {encoding[:40]!r}; send it as it is, or with gzip or deflate"
        raise invalid("CONTENT_ENCODING_UNSUPPORTED", message, "")
    taken = 0

    def take(size: int) -> None:
        nonlocal taken
        if not limits.in_memory.admits(size):
            message = (
                f"bodies of {limits.in_memory.total:,} bytes are in memory, and the limit is "
                f"{limits.in_memory.limit:,}, of which each client has a quota: try again"
            )
            raise ApiError(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", message, retry_after_s=RETRY_S)
        limits.in_memory.take(size)
        taken += size

    try:
        declared = request.headers.get("content-length")
        if declared is not None:
            _check_size(int(declared), limits.max_bytes)
            take(int(declared))
        chunks: list[bytes] = []
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if declared is None and chunk:  # the last one is empty
                _check_size(received, limits.max_bytes)
                take(len(chunk))
            chunks.append(chunk)
        body = await run_large(received, b"".join, chunks)  # of large ones, it releases the interpreter's lock
        del chunks
        if encoding != "identity":
            body = await run_large(received, _uncompress, body, encoding, limits.max_bytes)
            take(len(body))
        yield body
    finally:
        limits.in_memory.release(taken)


async def run_large(size: int, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function whose time grows with the size of a body: in a thread if the body is large."""
    if size > LARGE_BODY_BYTES:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


def _check_size(size: int, most: int) -> None:
    if size > most:
        message = f"the body has {size:,} bytes or more; at most {most:,} are allowed (the server's --max-message-mib)"
        raise invalid("BODY_TOO_LARGE", message, "", max_bytes=str(most))


def _uncompress(body: bytes, encoding: str, most: int) -> bytes:
    decoder = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        content = decoder.decompress(body, most + 1)
    except zlib.error as error:
        raise invalid("MESSAGE_INVALID", f"the body is not {encoding}: {error}", "") from None
    _check_size(len(content), most)
    if not decoder.eof or decoder.unused_data:
        problem = "goes on after its end" if decoder.eof else "ends early"
        raise invalid("MESSAGE_INVALID", f"the compressed body {problem}; compress all of it as one {encoding}", "")
    return content
