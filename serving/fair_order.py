"""Work of many callers in; work in an order that is fair to them out: who asks for much waits behind himself.

Self-clocked fair queueing (Golestani, "A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994):
each connection's next item is tagged with the virtual time at which it would be finished if all callers were served at
once, at equal rates; the smallest tag goes first. An item of a caller with nothing else in the queue so overtakes all
but about its own cost of every other caller's. Costs of a connection are multiplied by how many connections its owner
has in the queue: more connections get an owner no larger share.
"""

from collections import deque
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

from serving.callers import Caller

T = TypeVar("T")


class _Flow(Generic[T]):
    """What one connection has in the queue, oldest first, each with its cost."""

    __slots__ = ("caller", "items")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.items: deque[tuple[T, int]] = deque()


class FairOrder(Generic[T]):
    """Items in fair order. Only one thread may use it at a time."""

    def __init__(self) -> None:
        self._time = 0  # virtual: the tag of what was taken last
        self._number = 0  # of tags: equal ones go in the order in which they were given
        self._heap: list[tuple[int, int, _Flow[T]]] = []
        self._flows: dict[tuple[str, str], _Flow[T]] = {}
        self._connections: dict[str, int] = {}  # of each owner, with something in the queue

    def __bool__(self) -> bool:
        return bool(self._heap)

    def put(self, item: T, caller: Caller, cost: int) -> None:
        """Add an item that costs so much, at least 1."""
        key = caller.owner, caller.connection
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(caller)
            share = self._connections[caller.owner] = self._connections.get(caller.owner, 0) + 1
            self._number += 1
            heappush(self._heap, (self._time + cost * share, self._number, flow))
        flow.items.append((item, cost))

    def peek(self) -> T:
        """The next item; raises IndexError if there is none."""
        return self._heap[0][2].items[0][0]

    def take(self) -> T:
        """Remove and return the next item; raises IndexError if there is none."""
        tag, _, flow = self._heap[0]
        self._time = tag
        item, _ = flow.items.popleft()
        owner = flow.caller.owner
        if flow.items:
            self._number += 1
            heapreplace(self._heap, (tag + flow.items[0][1] * self._connections[owner], self._number, flow))
        else:
            heappop(self._heap)
            del self._flows[owner, flow.caller.connection]
            self._connections[owner] -= 1
            if not self._connections[owner]:
                del self._connections[owner]
        return item
