"""A file descriptor that somebody reads from in; BrokenPipeError, as soon as nobody does any more, out.

Who writes learns that from the next write. Who has nothing to write for an hour would wait for it that long.
"""

import os
import select
import signal
import threading
from types import FrameType


def raise_once_nobody_reads(descriptor: int) -> None:
    """Let the main thread, which is the one to call this, raise BrokenPipeError then.

    Args:
        descriptor: of a pipe or socket; of others, nothing ever happens.
    """
    signal.signal(signal.SIGPIPE, _raise)
    threading.Thread(target=_wait, args=(descriptor,), name="reader", daemon=True).start()


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told unasked
    if any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll()):
        os.kill(os.getpid(), signal.SIGPIPE)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    raise BrokenPipeError
