"""Failed calls in; whether to try again, and after how long, out. No gRPC channel here: both clients use it."""

import random
import time
from dataclasses import dataclass

import grpc

from serving.client.messages import ClientError

TOO_LARGE = "larger than max"
"""What gRPC says of messages over a limit: RESOURCE_EXHAUSTED, though sending them again never helps."""

GIVEN_UP = "CANCELLED: CANCELLED"
"""What gRPC says of calls that a server which stops had received and not begun."""
BROKEN = "RST_STREAM"
"""What gRPC says, as INTERNAL, when a proxy ends a call because the server behind it is gone."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When calls are tried again: while the server is not there, or says that too much is in flight.

    The n-th delay is drawn between 0 and `initial_s` x 2^(n-1), at most `max_s` ("full jitter", so that callers who
    failed together do not come back together), and begins where the server's own wish (RetryInfo) ends.

    Raises:
        ValueError: if a number is out of its range.
    """

    attempts: int = 5
    """How often a call is tried, the first time included; 1 for no retries. Never beyond the call's deadline."""
    initial_s: float = 0.1
    """Longest first delay."""
    max_s: float = 5.0
    """Longest delay."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1, which means no retries")
        if not 0 <= self.initial_s <= self.max_s:
            raise ValueError(
                f"initial_s is {self.initial_s} and max_s {self.max_s}; 0 <= initial_s <= max_s is allowed"
            )

    def delay_s(self, failures: int, error: ClientError) -> float:
        """Seconds to wait after so many failures, the last of which was `error`."""
        longest = min(self.max_s, self.initial_s * 2.0 ** min(failures - 1, 32))
        return (error.retry_after_s or 0.0) + random.uniform(0, longest)


class Attempts:
    """The tries of one call, within its deadline."""

    def __init__(self, retry: Retry, timeout_s: float) -> None:
        self._retry = retry
        self._deadline = time.monotonic() + timeout_s
        self._failures = 0

    def remaining_s(self) -> float:
        """What is left until the deadline."""
        return max(0.0, self._deadline - time.monotonic())

    def delay_after(self, error: ClientError, *, repeatable: bool = True) -> float | None:
        """Seconds to wait before the next try; None if there is to be none.

        Args:
            repeatable: whether the call may be done twice. If not, only what the server has surely not done is tried
                again.
        """
        self._failures += 1
        if self._failures >= self._retry.attempts or not helps(error):
            return None
        if not repeatable and error.retry_after_s is None:
            return None
        delay_s = self._retry.delay_s(self._failures, error)
        return delay_s if delay_s < self.remaining_s() else None


def helps(error: ClientError) -> bool:
    """Whether the same call may succeed later."""
    if error.code == grpc.StatusCode.UNAVAILABLE:
        return True
    if error.code == grpc.StatusCode.CANCELLED:
        return error.message == GIVEN_UP
    if error.code == grpc.StatusCode.INTERNAL:
        return not error.reason and BROKEN in error.message
    if error.code != grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    # the server says itself when a retry helps; gRPC and proxies do not
    return error.retry_after_s is not None if error.reason else TOO_LARGE not in error.message
