"""Signals as exceptions in the main thread."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise SystemExit with code 128 + number, as shells report a signal, when one of SIGNALS arrives within the block.

    Later signals are ignored, so that they do not interrupt the clean-up. Signals that were ignored before, as `nohup`
    ignores SIGHUP, stay ignored.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        before.clear()  # they stay ignored while the process ends
        sys.exit(128 + number)

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Handle a SIGINT that arrives within the block after the block, so that the block is done whole."""
    received: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])


def raise_when_reader_ends(descriptor: int) -> None:
    """Raise BrokenPipeError in the main thread as soon as the other end of a pipe or socket is closed.

    A writer learns that from its next write, which may be an hour away. For other descriptors, nothing happens.
    """
    signal.signal(signal.SIGPIPE, _raise)
    Thread(target=_wait, args=(descriptor,), name="reader", daemon=True).start()


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    if any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll()):
        os.kill(os.getpid(), signal.SIGPIPE)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    raise BrokenPipeError
