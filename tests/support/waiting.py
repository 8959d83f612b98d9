"""How tests wait: for events, with a limit that only a hang exceeds."""

import time
from collections.abc import Callable

LIMIT_S = 300.0
"""How long tests wait for something that takes moments on an idle machine."""


def eventually(happens: Callable[[], object]) -> bool:
    """Whether a condition becomes true within LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
