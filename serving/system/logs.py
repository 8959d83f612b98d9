"""Log records in; lines on standard error out, for people or as JSON for programs.

What may go wrong a thousand times a second in; lines of the log now and then, with how often it did, out.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Literal

from serving.context import Call, CallFilter

LogFormat = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")
FIELDS = "fields"
"""Where a record holds what JSON lines say beside its message: numbers and short texts, by name."""

access_logger = logging.getLogger("pawserve.access")


class AccessLog:
    """Writes one line for each call: what was asked, and how it ended. Nothing of what was sent is in it."""

    def began(self, call: Call, metadata: Mapping[str, str | bytes]) -> None:
        """Says nothing: a call is told of once, when it has ended."""

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """A call has ended."""
        counted = {"images": call.images, "rows": call.rows, "labels": call.labels}
        fields = {
            "request_id": call.request_id,
            "method": call.method,
            "code": code,
            "duration_s": round(seconds, 6),
            **{name: count for name, count in counted.items() if count},
        }
        access_logger.info("%s %s %.1f ms", call.method, code, 1000 * seconds, extra={FIELDS: fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A line for people; what a message quotes cannot begin a line of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = getattr(record, FIELDS, {})
        request_id = fields.get("request_id") or getattr(record, "request_id", "")
        line = super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")
        return f"{line} [{request_id}]" if request_id else line


def configure(format_: LogFormat, level: str) -> None:
    """Log to standard error, in this format, from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    handler.addFilter(CallFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


INTERVAL_S = 60.0
MOST_AT_ONCE = 8


class RateLimitedLogger:
    """Logs trouble: each kind at once, then once a minute while it lasts. Any thread may.

    Messages that differ are of different kinds; where there are many, some of them are not said.
    """

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level
        self._lock = Lock()
        self._said: set[str] = set()  # since the minute began
        self._until = 0.0  # when it ends, in seconds of time.monotonic()
        self._unsaid = 0

    def log(self, message: str) -> None:
        """Say this, or count it until it is time to say it again."""
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                self._said.clear()
                self._until = now + INTERVAL_S
            if message in self._said or len(self._said) == MOST_AT_ONCE:
                self._unsaid += 1
                return
            self._said.add(message)
            unsaid, self._unsaid = self._unsaid, 0
        since = f" (and {unsaid:,} times since the line before)" if unsaid else ""
        self._logger.log(self._level, "%s%s", message, since)

    def end(self) -> None:
        """It is over: what comes next is said at once."""
        with self._lock:
            self._until, self._unsaid = 0.0, 0
