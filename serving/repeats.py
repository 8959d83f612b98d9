"""What may go wrong a thousand times a second in; a line of the log now and then, with how often it did, out."""

import logging
import time
from threading import Lock

INTERVAL_S = 60.0


class Repeats:
    """Logs one kind of trouble: the first time at once, then once a minute while it lasts. Any thread may."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level
        self._lock = Lock()
        self._due_at = 0.0  # time.monotonic()
        self._unsaid = 0

    def log(self, message: str) -> None:
        """Say this, or count it until it is time to say it again."""
        with self._lock:
            now = time.monotonic()
            if now < self._due_at:
                self._unsaid += 1
                return
            unsaid, self._unsaid, self._due_at = self._unsaid, 0, now + INTERVAL_S
        since = f" ({unsaid:,} more times since this was logged last)" if unsaid else ""
        self._logger.log(self._level, "%s%s", message, since)
