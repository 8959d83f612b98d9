"""Requests and their images, as they pass through the batcher."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.context import Call, ClientIdentity
from serving.engine.base import InferenceError
from serving.image.decode import DecodeWork
from serving.system.memory import is_out_of_memory

Prepare = Callable[[], NDArray[np.uint8]]
"""Makes the rows of one image, uint8 `[V, H, W, 3]`, in a worker thread; an exception becomes the image's outcome."""


NO_WORK = DecodeWork(0, large=False)
EXPIRED = "the deadline passed while the image waited"
"""The message of the TimeoutError of images that were not begun in time."""


class QueueFull(RuntimeError):
    """Too many rows are in flight.

    `retry_after_s` is the number of seconds until about half of them are done; None if the request has more rows than
    are ever allowed.
    """

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def to_inference_error(error: BaseException) -> InferenceError | MemoryError:
    """Return the outcome of the rows of an engine call that raised `error`."""
    if isinstance(error, Exception) and is_out_of_memory(error):
        return MemoryError("the engine had too little memory for a batch")
    return InferenceError(f"the engine failed on this batch: {type(error).__name__}")


class Request:
    """Images whose outcomes are awaited together. Made in the event loop."""

    __slots__ = ("abandoned", "began", "call", "client", "deadline", "done", "unsettled")

    def __init__(self, images: int, deadline: float, client: ClientIdentity, call: Call | None) -> None:
        """`deadline` is a time of time.monotonic(), in seconds; `call` is None if no call asks for this."""
        self.unsettled = images
        self.began = time.monotonic()
        self.call = call
        self.client = client
        self.deadline = deadline
        self.done = asyncio.get_running_loop().create_future()
        self.abandoned = False

    def unwanted(self) -> bool:
        """Whether the outcomes are no longer needed."""
        return self.abandoned or time.monotonic() >= self.deadline


def complete(requests: Sequence[Request]) -> None:
    """Resolve the futures of requests, in any thread, with one wake-up of their event loop."""
    wanted = [request.done for request in requests if not request.abandoned]
    if wanted:
        with suppress(RuntimeError):  # the loop has ended
            wanted[0].get_loop().call_soon_threadsafe(_resolve, wanted)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Job:
    """One image: it is prepared first, then its rows are computed."""

    __slots__ = (
        "extra",
        "images_VHWC",
        "large",
        "outcome",
        "prepare",
        "prepare_began",
        "prepare_ended",
        "probabilities_VK",
        "request",
        "rows",
        "taken",
        "uncomputed",
        "work_us",
    )

    def __init__(
        self,
        request: Request,
        prepare: Prepare,
        rows: int,
        *,
        row_s: float,
        extra: bool = False,
        work: DecodeWork = NO_WORK,
    ) -> None:
        """`work` is the estimated work of `prepare`, `row_s` the estimated seconds of a row in an engine."""
        self.work_us = 1 + round(1e6 * (work.seconds + rows * row_s))
        self.large = work.large
        self.request = request
        self.prepare = prepare
        self.rows = rows
        self.extra = extra or rows > 1  # has views beyond the first: images with one view may go first
        self.taken = 0  # rows in engine calls that have begun
        self.uncomputed = rows
        self.prepare_began = self.prepare_ended = 0.0  # time.monotonic()
        self.images_VHWC: NDArray[np.uint8]
        self.probabilities_VK: NDArray[np.float32]
        self.outcome: NDArray[np.float32] | Exception | None = None


RowSlice = tuple[Job, int, int]
"""Rows first to last - 1 of a job."""


def join_rows(batch: Sequence[RowSlice]) -> NDArray[np.uint8]:
    """Join the rows of an engine call, uint8 `[N, H, W, 3]`, in one array that must not be written to."""
    slices = [job.images_VHWC[first:last] for job, first, last in batch]
    if len(slices) == 1:
        return slices[0]
    # with bytes.join: numpy releases the interpreter's lock while it copies, and on a busy server it takes long to get
    # the lock back
    return np.frombuffer(b"".join(each.data for each in slices), np.uint8).reshape(-1, *slices[0].shape[1:])


def store_rows(batch: Sequence[RowSlice], probabilities_NK: NDArray[np.float32]) -> list[Job]:
    """Store the results of an engine call in its jobs, and return the jobs whose rows are all computed."""
    computed: list[Job] = []
    row = 0
    for job, first, last in batch:
        if job.uncomputed == job.rows:
            job.probabilities_VK = np.empty((job.rows, probabilities_NK.shape[1]), np.float32)
        job.probabilities_VK[first:last] = probabilities_NK[row : row + last - first]
        row += last - first
        job.uncomputed -= last - first
        if job.uncomputed == 0:
            computed.append(job)
    return computed


class BatchObserver(Protocol):
    """Is notified of every batch, in a worker thread. Its methods take microseconds and do not raise."""

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        """An engine call with these rows has succeeded; times are of time.monotonic(), in seconds."""
