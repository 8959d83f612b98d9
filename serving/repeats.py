"""What may go wrong a thousand times a second in; lines of the log now and then, with how often it did, out."""

import logging
import time
from threading import Lock

INTERVAL_S = 60.0
MOST_AT_ONCE = 8


class Repeats:
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
