"""What waits for an engine: pictures, first to be prepared and then to be computed, and the requests they belong to."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.context import CURRENT_CALL, CURRENT_CLIENT
from serving.engine.base import InferenceError
from serving.system.memory import is_out_of_memory

Prepare = Callable[[], NDArray[np.uint8]]
"""Makes one picture's rows, uint8 `[V, H, W, 3]`, in a worker's thread; what it raises is the picture's outcome."""


class QueueFull(RuntimeError):
    """More rows would be in flight than may be; in `retry_after_s` seconds about half of them will be done.

    None: these rows are more than there ever is room for.
    """

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def to_inference_error(error: Exception) -> InferenceError | MemoryError:
    """What becomes of a batch's rows when their engine call raised."""
    if is_out_of_memory(error):
        return MemoryError("the engine had too little for a batch")
    return InferenceError(f"the engine failed on this batch: {type(error).__name__}")


class Request:
    """Pictures whose outcomes are awaited together."""

    __slots__ = ("abandoned", "began", "call", "caller", "deadline", "done", "unsettled")

    def __init__(self, pictures: int, deadline: float) -> None:
        self.unsettled = pictures
        self.began = time.monotonic()
        self.call = CURRENT_CALL.get()
        self.caller = CURRENT_CLIENT.get()
        self.deadline = deadline
        self.done = asyncio.get_running_loop().create_future()
        self.abandoned = False

    def unwanted(self) -> bool:
        """Whether nobody waits for the outcomes any more."""
        return self.abandoned or time.monotonic() >= self.deadline


class Job:
    """One picture: first to be prepared, then a number of rows to compute."""

    __slots__ = (
        "extra",
        "images_VHWC",
        "outcome",
        "prepare",
        "prepare_began",
        "prepare_ended",
        "probabilities_VK",
        "request",
        "rows",
        "taken",
        "uncomputed",
    )

    def __init__(self, request: Request, prepare: Prepare, rows: int, *, extra: bool = False) -> None:
        self.request = request
        self.prepare = prepare
        self.rows = rows
        self.extra = extra or rows > 1  # has views beyond the first: single first views may go before it
        self.taken = 0  # rows that an engine call has begun with
        self.uncomputed = rows
        self.prepare_began = self.prepare_ended = 0.0  # time.monotonic()
        self.images_VHWC: NDArray[np.uint8]
        self.probabilities_VK: NDArray[np.float32]
        self.outcome: NDArray[np.float32] | Exception | None = None


RowSlice = tuple[Job, int, int]
"""Rows first to last - 1 of a job."""


def join_rows(batch: Sequence[RowSlice]) -> NDArray[np.uint8]:
    """The rows of an engine call, uint8 `[N, H, W, 3]`, in one piece; not to be written to."""
    pieces = [job.images_VHWC[first:last] for job, first, last in batch]
    if len(pieces) == 1:
        return pieces[0]
    # by Python: numpy lets go of the interpreter's lock to copy, and on a busy server it takes long to return
    return np.frombuffer(b"".join(piece.data for piece in pieces), np.uint8).reshape(-1, *pieces[0].shape[1:])


class BatchObserver(Protocol):
    """Hears of every batch, in a worker's thread: it must be quick, and not raise."""

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float) -> None:
        """An engine call with these rows has ended well; times are of time.monotonic(), in seconds."""
