"""A mapping of bounded size whose entries expire."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Remembers values for some time, and at most so many: the oldest go first. Not thread-safe.

    Args:
        limit: most entries.
        max_age_s: how long an entry is remembered after it was first set, in seconds.
        on_forgotten: is called with entries that expire or make room for others.
        clock: returns seconds.
    """

    def __init__(
        self, limit: int, max_age_s: float, on_forgotten: Callable[[K, V], None], clock: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._max_age_s = max_age_s
        self._on_forgotten = on_forgotten
        self._clock = clock
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()  # in the order in which they expire

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value of a key; None if it is not remembered."""
        self._forget_expired()
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def set(self, key: K, value: V) -> None:
        """Remember a value; a key that is remembered already does not become younger."""
        self._forget_expired()
        if old := self._entries.get(key):
            self._entries[key] = value, old[1]
            return
        if len(self._entries) >= self._limit:
            self._forget()
        self._entries[key] = value, self._clock() + self._max_age_s

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value; None if it is not remembered."""
        self._forget_expired()
        entry = self._entries.pop(key, None)
        return entry[0] if entry else None

    def drain(self) -> Iterator[tuple[K, V]]:
        """Remove and yield all entries, the oldest first."""
        while self._entries:
            key, (value, _) = self._entries.popitem(last=False)
            yield key, value

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._entries and next(iter(self._entries.values()))[1] <= now:
            self._forget()

    def _forget(self) -> None:
        key, (value, _) = self._entries.popitem(last=False)
        self._on_forgotten(key, value)
