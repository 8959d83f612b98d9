"""Queues that are fair to clients, and prefer images with a single view.

Fairness: self-clocked fair queueing (Golestani, "A self-clocked fair queueing scheme for broadband applications",
INFOCOM 1994). The next item of each connection is tagged with the virtual time at which it would be finished if all
clients were served at once, at equal rates; the smallest tag goes first. So an item of a client with nothing else in
the queue overtakes all but about its own cost of every other client's items. Costs of a connection are multiplied by
the number of connections that its owner has in the queue, so that more connections give no larger share.

Priority: within a connection single views go before extra views of test-time augmentation. So under load requests for
one view are answered first, and adaptive requests learn soon which images need more views. Extra views have a share of
the turns, so they wait longer but never for ever.
"""

from collections import deque
from heapq import heappop, heappush, heapreplace
from queue import SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

from serving.context import ClientIdentity

T = TypeVar("T")
S = TypeVar("S")

FRESH_PER_EXTRA = 3
"""Images with a single, first view that go before one with extra views does, while both wait."""


class PriorityLanes(Generic[T]):
    """Two queues, first come first served each. Not thread-safe."""

    def __init__(self) -> None:
        self._fresh: deque[T] = deque()
        self._extra: deque[T] = deque()
        self._passed = 0  # fresh items taken since an extra one was

    def __len__(self) -> int:
        return len(self._fresh) + len(self._extra)

    def put(self, item: T, *, extra: bool) -> None:
        """Add an image with a single, first view, or with `extra` views."""
        (self._extra if extra else self._fresh).append(item)

    def peek(self) -> T:
        """Return the next item. Raises IndexError if there is none."""
        return self._next()[0]

    def take(self) -> T:
        """Remove and return the next item. Raises IndexError if there is none."""
        lane = self._next()
        self._passed = self._passed + 1 if lane is self._fresh and self._extra else 0
        return lane.popleft()

    def _next(self) -> deque[T]:
        extra_turn = not self._fresh or self._passed >= FRESH_PER_EXTRA
        return self._extra if self._extra and extra_turn else self._fresh


class _Flow(Generic[T]):
    """The items of one connection, each with its cost."""

    __slots__ = ("client", "items")

    def __init__(self, client: ClientIdentity) -> None:
        self.client = client
        self.items: PriorityLanes[tuple[T, int]] = PriorityLanes()


class FairOrder(Generic[T]):
    """Items in fair order. Not thread-safe."""

    def __init__(self) -> None:
        self._time = 0  # virtual: the tag of the last item that was taken
        self._number = 0  # of tags: equal ones go in the order in which they were given
        self._heap: list[tuple[int, int, _Flow[T]]] = []
        self._flows: dict[tuple[str, str], _Flow[T]] = {}
        self._connections: dict[str, int] = {}  # owner -> connections with something in the queue

    def __bool__(self) -> bool:
        return bool(self._heap)

    def put(self, item: T, client: ClientIdentity, cost: int, *, extra: bool = False) -> None:
        """Add an item of a cost of at least 1; an `extra` one goes after the others of its connection."""
        key = client.owner, client.connection
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(client)
            connections = self._connections[client.owner] = self._connections.get(client.owner, 0) + 1
            self._number += 1
            heappush(self._heap, (self._time + cost * connections, self._number, flow))
        flow.items.put((item, cost), extra=extra)

    def peek(self) -> T:
        """Return the next item; there must be one."""
        return self._heap[0][2].items.peek()[0]

    def take(self) -> T:
        """Remove and return the next item; there must be one."""
        tag, _, flow = self._heap[0]
        self._time = tag
        item, _ = flow.items.take()
        owner = flow.client.owner
        if flow.items:
            self._number += 1
            heapreplace(self._heap, (tag + flow.items.peek()[1] * self._connections[owner], self._number, flow))
        else:
            heappop(self._heap)
            del self._flows[owner, flow.client.connection]
            self._connections[owner] -= 1
            if not self._connections[owner]:
                del self._connections[owner]
        return item


class FairQueue(Generic[T, S]):
    """Items in fair order, and signals between them, for threads that wait for either."""

    def __init__(self) -> None:
        self._order: FairOrder[T] = FairOrder()
        self._lock = Lock()
        # one entry for each item (None) and signal: threads wait in SimpleQueue, which is written in C
        self._arrivals: SimpleQueue[S | None] = SimpleQueue()

    def put(self, item: T, client: ClientIdentity, cost: int, *, extra: bool = False) -> None:
        """Add an item of a cost of at least 1; an `extra` one goes after the others of its connection."""
        with self._lock:
            self._order.put(item, client, cost, extra=extra)
        self._arrivals.put(None)

    def signal(self, signal: S) -> None:
        """Add a signal: it is returned after as many items as were in the queue before it."""
        self._arrivals.put(signal)

    def get(self, timeout_s: float | None = None) -> T | S:
        """Remove and return an item or a signal, when there is one. Raises queue.Empty after `timeout_s`."""
        arrival = self._arrivals.get(timeout=timeout_s)
        if arrival is not None:
            return arrival
        with self._lock:
            return self._order.take()

    def get_nowait(self) -> T | S:
        """Remove and return an item or a signal. Raises queue.Empty if there is none."""
        return self.get(0)

    def qsize(self) -> int:
        """Number of items and signals, now or a moment ago."""
        return self._arrivals.qsize()

    def empty(self) -> bool:
        """Whether there is no item and no signal, now or a moment ago."""
        return self._arrivals.empty()
