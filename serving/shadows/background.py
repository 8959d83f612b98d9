"""A thread for work that may hang: a stop does not wait for it for long."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class BackgroundThread:
    """Runs functions one after the other."""

    def __init__(self, name: str) -> None:
        self._functions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function, which must not raise, after those before it."""
        self._functions.put(function)

    def close(self, timeout_s: float) -> bool:
        """Stop after the functions that were submitted; return whether they have ended in time."""
        self._functions.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while function := self._functions.get():
            function()
