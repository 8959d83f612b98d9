"""The gRPC call that is being answered, as logs, metrics and traces know it. No gRPC here."""

import itertools
import logging
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any

REQUEST_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
"""What is taken over from callers: it is written to logs and sent back, so it must fit in a line of them."""

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


class Call:
    """One call, from its arrival to its last answer. Inner layers add what they did for it."""

    __slots__ = ("began", "images", "labels", "method", "request_id", "rows", "trace")

    def __init__(self, method: str, request_id: str) -> None:
        self.method = method
        """pawserve.v1.Classifier/Classify."""
        self.request_id = request_id
        self.began = time.monotonic()
        self.images = 0
        """Pictures classified, or refused one by one."""
        self.rows = 0
        """Rows admitted for them: pictures times views."""
        self.labels = 0
        """Labels recorded."""
        self.trace: Any = None
        """The OpenTelemetry context of its span, if it is traced."""

    def elapsed_s(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.began


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""The call that this task works for; tasks that it starts see it too."""


def choose_request_id(given: object) -> str:
    """The caller's ID if it is one; else a new one, unique among all servers and starts."""
    if isinstance(given, str) and REQUEST_ID_PATTERN.fullmatch(given):
        return given
    return f"{_prefix}-{next(_numbers):x}"


class CallFilter(logging.Filter):
    """Adds `request_id` to what is logged while a call is being answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        call = current_call.get()
        if call is not None and not hasattr(record, "request_id"):
            record.request_id = call.request_id
        return True
