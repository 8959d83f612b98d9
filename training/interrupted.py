"""Ctrl-C in; the exit code that shells know it by, whatever Python was doing, out."""

import os
import signal

INTERRUPTED = 130


def settle_interrupt() -> int:
    """From here on the process ends with this exit code; a further Ctrl-C ends it at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    # If it struck within an exec of source text, as dataclasses and torch's compilers use, Python would still end by
    # the signal: its note of that is only taken back where the next such exec begins.
    exec("")
    return INTERRUPTED
