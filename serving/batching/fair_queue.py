"""Pictures that wait in; the one whose turn it is out: single views first, extra views of test-time augmentation after.

Under load, whoever asks for one view is answered before the views that others average over, and adaptive requests
learn soon which pictures need more views. Within a lane it is first come, first served; a share of the turns belongs
to the extra views, so that they wait longer, but never for ever.

Work of many callers in; work in an order that is fair to them out: who asks for much waits behind himself.

Self-clocked fair queueing (Golestani, "A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994):
each connection's next item is tagged with the virtual time at which it would be finished if all callers were served at
once, at equal rates; the smallest tag goes first. An item of a caller with nothing else in the queue so overtakes all
but about its own cost of every other caller's. Costs of a connection are multiplied by how many connections its owner
has in the queue: more connections get an owner no larger share.
"""

from collections import deque
from heapq import heappop, heappush, heapreplace
from queue import SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

from serving.context import ClientIdentity

T = TypeVar("T")

FRESH_PER_EXTRA = 3
"""While both wait: pictures of a single, first view that go before one with extra views does."""


class PriorityLanes(Generic[T]):
    """Two queues. Not for several threads at once."""

    def __init__(self) -> None:
        self._fresh: deque[T] = deque()
        self._extra: deque[T] = deque()
        self._passed = 0  # fresh ones taken since an extra one was

    def __len__(self) -> int:
        return len(self._fresh) + len(self._extra)

    def put(self, item: T, *, extra: bool) -> None:
        """Queue a picture: one with a single, first view, or one with `extra` views."""
        (self._extra if extra else self._fresh).append(item)

    def peek(self) -> T:
        """The one whose turn it is. Raises IndexError if there is none."""
        return self._next()[0]

    def take(self) -> T:
        """Take the one whose turn it is. Raises IndexError if there is none."""
        lane = self._next()
        self._passed = self._passed + 1 if lane is self._fresh and self._extra else 0
        return lane.popleft()

    def _next(self) -> deque[T]:
        extra_turn = not self._fresh or self._passed >= FRESH_PER_EXTRA
        return self._extra if self._extra and extra_turn else self._fresh


S = TypeVar("S")


class _Flow(Generic[T]):
    """What one connection has in the queue, each with its cost, in the order of its lanes."""

    __slots__ = ("caller", "items")

    def __init__(self, caller: ClientIdentity) -> None:
        self.caller = caller
        self.items: PriorityLanes[tuple[T, int]] = PriorityLanes()


class FairOrder(Generic[T]):
    """Items in fair order. Not for several threads at once."""

    def __init__(self) -> None:
        self._time = 0  # virtual: the tag of what was taken last
        self._number = 0  # of tags: equal ones go in the order in which they were given
        self._heap: list[tuple[int, int, _Flow[T]]] = []
        self._flows: dict[tuple[str, str], _Flow[T]] = {}
        self._connections: dict[str, int] = {}  # of each owner, with something in the queue

    def __bool__(self) -> bool:
        return bool(self._heap)

    def put(self, item: T, caller: ClientIdentity, cost: int, *, extra: bool = False) -> None:
        """Add an item that costs so much, at least 1; an `extra` one goes after others of its connection."""
        key = caller.owner, caller.connection
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(caller)
            share = self._connections[caller.owner] = self._connections.get(caller.owner, 0) + 1
            self._number += 1
            heappush(self._heap, (self._time + cost * share, self._number, flow))
        flow.items.put((item, cost), extra=extra)

    def peek(self) -> T:
        """The next item; there must be one."""
        return self._heap[0][2].items.peek()[0]

    def take(self) -> T:
        """Remove and return the next item; there must be one."""
        tag, _, flow = self._heap[0]
        self._time = tag
        item, _ = flow.items.take()
        owner = flow.caller.owner
        if flow.items:
            self._number += 1
            heapreplace(self._heap, (tag + flow.items.peek()[1] * self._connections[owner], self._number, flow))
        else:
            heappop(self._heap)
            del self._flows[owner, flow.caller.connection]
            self._connections[owner] -= 1
            if not self._connections[owner]:
                del self._connections[owner]
        return item


class FairQueue(Generic[T, S]):
    """Items in fair order, for threads that wait for them; and signals, in the order of all that came."""

    def __init__(self) -> None:
        self._order: FairOrder[T] = FairOrder()
        self._lock = Lock()
        # One entry for each item (None) and signal: waiting is SimpleQueue's, which needs no lock of Python's.
        self._arrivals: SimpleQueue[S | None] = SimpleQueue()

    def put(self, item: T, caller: ClientIdentity, cost: int, *, extra: bool = False) -> None:
        """Add an item that costs so much, at least 1; an `extra` one goes after others of its connection."""
        with self._lock:
            self._order.put(item, caller, cost, extra=extra)
        self._arrivals.put(None)

    def signal(self, signal: S) -> None:
        """Add a signal: it is got after as many items as were in the queue before it."""
        self._arrivals.put(signal)

    def get(self, timeout_s: float | None = None) -> T | S:
        """Remove and return an item or a signal; waits until there is one. Raises queue.Empty if it takes too long."""
        return self._resolve(self._arrivals.get(timeout=timeout_s))

    def get_nowait(self) -> T | S:
        """Remove and return an item or a signal. Raises queue.Empty if there is none."""
        return self._resolve(self._arrivals.get_nowait())

    def qsize(self) -> int:
        """How many items and signals there are, or were a moment ago."""
        return self._arrivals.qsize()

    def empty(self) -> bool:
        """Whether there is nothing, or was nothing a moment ago."""
        return self._arrivals.empty()

    def _resolve(self, arrival: S | None) -> T | S:
        if arrival is not None:
            return arrival
        with self._lock:
            return self._order.take()
