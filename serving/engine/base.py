"""The `Engine` protocol, its errors, and the layout of engines on a machine."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Device = Literal["cpu", "cuda"]


class InferenceError(RuntimeError):
    """The engine could not compute a batch."""


class DeviceLost(InferenceError):
    """The device fails every further call of this process, as a GPU does after an invalid memory access.

    Only a new process can use it again. The message names the cause.
    """


class Engine(Protocol):
    """One instance of a model, which computes one batch at a time. `run` is called by one thread at a time."""

    @property
    def max_batch_size(self) -> int:
        """Most rows of one call."""

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch.

        Args:
            images_NHWC: uint8 `[N, H, W, 3]`, RGB views of the network's size; 1 to `max_batch_size` of them.

        Returns:
            float32 `[N, K]`: the probabilities of the K classes.

        Raises:
            DeviceLost: if no batch can be computed any more.
            Exception: what the runtime raises, if this batch cannot be computed.
        """

    def close(self) -> None:
        """Release memory and threads. The engine cannot run afterwards; a second call does nothing."""


@dataclass(frozen=True, kw_only=True)
class EngineLayout:
    """How many engines compute a model on this machine, with how many threads and rows each."""

    instances: int
    """Batches computed at the same time."""
    threads: int
    """CPU threads of each instance."""
    max_batch_size: int
    """Most rows of one engine call."""
    single_row_threads: int = 0
    """CPU threads of one more instance, which computes single requests (single_row.py); 0 for no such instance."""

    def __post_init__(self) -> None:
        for name, least in (("instances", 1), ("threads", 1), ("max_batch_size", 1), ("single_row_threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def __str__(self) -> str:
        instances = f"{self.instances} instance{'s' * (self.instances > 1)}"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        single_row = f", {self.single_row_threads} threads for single requests" if self.single_row_threads else ""
        return f"{instances} x {threads}{single_row}"


def bucket_sizes(least: int, most: int) -> list[int]:
    """List the batch sizes that a GPU runs: both ends, and the powers of two between them. Others are padded."""
    powers = [1 << exponent for exponent in range(most.bit_length())]
    return sorted({least, most, *(power for power in powers if least <= power <= most)})
