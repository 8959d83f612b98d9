"""Logging to standard error, as text for people or JSON for programs, and rate limits for repeated messages."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Literal

from serving.system.output import is_utf8

LogFormat = Literal["text", "json"]
Filter = Callable[[logging.LogRecord], bool]
"""Adds to a record, and returns whether to keep it."""
LEVELS = ("debug", "info", "warning", "error")
REPEAT_S = 60.0
"""How long a repeated message of a `RateLimitedLogger` is only counted."""
MAX_MESSAGES = 8
"""How many different messages it logs in that time; others are only counted."""
REQUEST_ID = "request_id"
"""Attribute of a record, or name of one of its fields: the ID of the request that it is about."""
PROCESS = "process_number"
"""Attribute of a record: which process of a server of several processes wrote it, from 1."""
FIELDS = "fields"
"""Attribute of a record: numbers and short texts by name, which JSON lines show beside the message."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, request ID, fields and exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if process := getattr(record, PROCESS, None):
            line["process"] = process
        if request_id := getattr(record, REQUEST_ID, None):
            line[REQUEST_ID] = request_id
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=not is_utf8(sys.stderr))


class TextFormatter(logging.Formatter):
    """One line for people. Line breaks in a message are escaped, so that no client can forge a log line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        request_id = getattr(record, FIELDS, {}).get(REQUEST_ID) or getattr(record, REQUEST_ID, "")
        line = super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")
        if process := getattr(record, PROCESS, None):
            line = f"[{process}] {line}"
        return f"{line} [{request_id}]" if request_id else line


def add_process(number: int) -> Filter:
    """A filter that adds the number of this process to each record."""

    def add(record: logging.LogRecord) -> bool:
        setattr(record, PROCESS, number)
        return True

    return add


def configure(format_: LogFormat, level: str, *filters: Filter) -> None:
    """Log to standard error.

    Args:
        format_: of the lines.
        level: one of LEVELS; records below it are dropped.
        filters: applied to every record, for example to add a request ID.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    for each in filters:
        handler.addFilter(each)
    logging.basicConfig(level=level.upper(), handlers=[handler])


class RateLimitedLogger:
    """Logs each message at once, and the same message at most once in REPEAT_S. Any thread may use it.

    Args:
        logger: where to log.
        level: the level of all messages.
        clock: a monotonic time in seconds.
    """

    def __init__(self, logger: logging.Logger, level: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._level = level
        self._clock = clock
        self._lock = Lock()
        self._logged: set[str] = set()  # in this interval
        self._interval_end = 0.0
        self._suppressed = 0

    def log(self, message: str) -> None:
        """Log the message, or count it until the interval is over."""
        with self._lock:
            now = self._clock()
            if now >= self._interval_end:
                self._logged.clear()
                self._interval_end = now + REPEAT_S
            if message in self._logged or len(self._logged) == MAX_MESSAGES:
                self._suppressed += 1
                return
            self._logged.add(message)
            suppressed, self._suppressed = self._suppressed, 0
        note = f" (and {suppressed:,} more since the previous line)" if suppressed else ""
        self._logger.log(self._level, "%s%s", message, note)

    def reset(self) -> None:
        """End the interval: the problem is over, and the next message is logged at once."""
        with self._lock:
            self._interval_end, self._suppressed = 0.0, 0
