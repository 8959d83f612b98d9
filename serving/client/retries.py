"""Retries of failed calls: which errors are retried, and after which delays."""

import random
import time
from dataclasses import dataclass

import grpc

from serving.client.messages import ClientError

TOO_LARGE = "larger than max"
"""Part of gRPC's message for messages over a size limit: RESOURCE_EXHAUSTED, but sending them again never helps."""
NOT_STARTED = "CANCELLED: CANCELLED"
"""Message of calls that a stopping server had received but not started."""
RESET = "RST_STREAM"
"""Part of gRPC's message, with code INTERNAL, when a proxy ends a call because the server behind it is gone."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When calls are tried again: while the server is unavailable or overloaded.

    The n-th delay is drawn uniformly between 0 and `initial_s` x 2^(n-1), at most `max_s` ("full jitter", so that
    clients that failed together do not return together), and added to the delay that the server asked for (RetryInfo).

    Raises:
        ValueError: if a number is out of its range.
    """

    attempts: int = 5
    """Most tries of a call, the first one included; 1 for no retries. None starts after the call's deadline."""
    initial_s: float = 0.1
    """Upper bound of the first delay in seconds."""
    max_s: float = 5.0
    """Upper bound of every delay in seconds."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1, which means no retries")
        if not 0 <= self.initial_s <= self.max_s:
            raise ValueError(
                f"initial_s is {self.initial_s} and max_s {self.max_s}; 0 <= initial_s <= max_s is allowed"
            )

    def delay_s(self, failures: int, error: ClientError) -> float:
        """Seconds to wait after `failures` failed tries, the last of which ended with `error`."""
        longest = min(self.max_s, self.initial_s * 2.0 ** min(failures - 1, 32))
        return (error.retry_after_s or 0.0) + random.uniform(0, longest)


class Attempts:
    """The tries of one call, within its deadline."""

    def __init__(self, retry: Retry, timeout_s: float) -> None:
        self._retry = retry
        self._deadline = time.monotonic() + timeout_s
        self._failures = 0

    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - time.monotonic())

    def delay_after(self, error: ClientError, *, repeatable: bool = True) -> float | None:
        """Seconds to wait before the next try; None if there must be none.

        Args:
            error: what the last try ended with.
            repeatable: whether the call may be executed twice. If not, it is tried again only if the server reports
                that it has not started it.
        """
        self._failures += 1
        if self._failures >= self._retry.attempts or not is_retryable(error):
            return None
        if not repeatable and error.retry_after_s is None:
            return None
        delay_s = self._retry.delay_s(self._failures, error)
        return delay_s if delay_s < self.remaining_s() else None


def is_retryable(error: ClientError) -> bool:
    """Whether the same call may succeed later."""
    if error.code == grpc.StatusCode.UNAVAILABLE:
        return True
    if error.code == grpc.StatusCode.CANCELLED:
        return error.message == NOT_STARTED
    if error.code == grpc.StatusCode.INTERNAL:
        return not error.reason and RESET in error.message
    if error.code != grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    # the server states whether a retry helps; gRPC and proxies do not
    return error.retry_after_s is not None if error.reason else TOO_LARGE not in error.message
