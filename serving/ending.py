"""For commands that must clear up when they are ended: SIGINT, SIGTERM and SIGHUP, once, as an exception."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def clearing_up() -> Iterator[None]:
    """Within the block each of the three raises SystemExit with 128 and its number, as shells tell of a signal.

    Later ones are ignored, so that none disturbs the clearing up. What is ignored already, as `nohup` ignores SIGHUP,
    stays so. For the main thread.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        before.clear()  # as the process ends, they stay ignored
        sys.exit(128 + number)

    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
