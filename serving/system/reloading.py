"""Files that are read again when they change, without a restart."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

CHECK_EVERY_S = 1.0

T = TypeVar("T")

_Fingerprint = tuple[tuple[int, ...] | None, ...]

logger = logging.getLogger(__name__)


class Reloading(Generic[T]):
    """The value of some files. A change that cannot be read is logged once, and the earlier value stays in use.

    Any thread may call `get`.
    """

    def __init__(
        self, what: str, paths: Sequence[Path], load: Callable[[], T], *, check_every_s: float = CHECK_EVERY_S
    ) -> None:
        """Read the files.

        Args:
            what: what the files hold, for the log.
            paths: the files to watch; links are followed, since mounted secrets change by a change of links.
            load: reads the files; raises ValueError or OSError if they cannot be used.
            check_every_s: how often to check for changes, in seconds.

        Raises:
            ValueError, OSError: from `load`; after this first call they are logged instead.
        """
        self._what = what
        self._paths = paths
        self._load = load
        self._check_every_s = check_every_s
        self._lock = Lock()
        self._seen = self._fingerprint()  # before reading: a change meanwhile is seen at the next check
        self._value = load()
        self._next_check = time.monotonic() + check_every_s

    def get(self) -> T:
        """The value of the files, at most `check_every_s` seconds old."""
        if time.monotonic() >= self._next_check and self._lock.acquire(blocking=False):
            try:
                self._check()
            finally:
                self._lock.release()
        return self._value

    def _check(self) -> None:
        self._next_check = time.monotonic() + self._check_every_s
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return
        self._seen = fingerprint
        try:
            self._value = self._load()
        except (ValueError, OSError) as error:
            logger.error("the changed %s cannot be used, and the earlier ones stay in use: %s", self._what, error)
        else:
            logger.info("the %s changed and were reloaded", self._what)

    def _fingerprint(self) -> _Fingerprint:
        return tuple(map(state_of, self._paths))


def state_of(path: Path) -> tuple[int, ...] | None:
    """A value that changes with the file; None if there is none, or it cannot be accessed."""
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
