"""Pictures that are decoded at full size at the same time in; no more of them than the memory for the largest takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class PixelRoom:
    """So many pixels may be decoded at once; who comes when there is no room waits. Any thread may."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._taken = 0

    @contextmanager
    def take(self, pixels: int, most: int) -> Iterator[None]:
        """Hold room for a picture while the block runs.

        Args:
            pixels: of the picture. Alone, any is let in.
            most: of all pictures together.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()
