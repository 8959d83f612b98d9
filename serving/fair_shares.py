"""A bounded amount of something, shared between callers: who may take how much of it.

A caller may hold at most four times what is free ("dynamic thresholds": Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998), and each of its connections at most four times what is free of that. So one greedy caller gets
up to about 80% of the whole, several divide it evenly, and there is room for one who comes anew. Only one thread may
use these.
"""

from serving.callers import NOBODY, Caller

GREED = 4
"""How many times what is free a caller may hold."""


class FairShares:
    """So much of something, and who holds how much of it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        """How much is taken."""
        self._owners: dict[str, dict[str, int]] = {}  # owner -> connection -> amount

    def admits(self, caller: Caller, amount: int) -> bool:
        """Whether the caller may take so much more. This process itself, which measures, may take all."""
        if self.total + amount > self.limit:
            return False
        if caller is NOBODY:
            return True
        connections = self._owners.get(caller.owner)
        if connections is None:
            return amount <= GREED * (self.limit - self.total)
        held = sum(connections.values())
        allowed = min(self.limit, GREED * (self.limit - self.total))
        return held + amount <= allowed and connections.get(caller.connection, 0) + amount <= GREED * (allowed - held)

    def take(self, caller: Caller, amount: int) -> None:
        """Note that the caller took so much, at least 0."""
        if not amount:
            return
        connections = self._owners.setdefault(caller.owner, {})
        connections[caller.connection] = connections.get(caller.connection, 0) + amount
        self.total += amount

    def give_back(self, caller: Caller, amount: int) -> None:
        """Note that the caller gave so much back, at least 0."""
        if not amount:
            return
        connections = self._owners[caller.owner]
        connections[caller.connection] -= amount
        self.total -= amount
        if not connections[caller.connection]:
            del connections[caller.connection]
            if not connections:
                del self._owners[caller.owner]

    def before(self, caller: Caller, amount: int) -> int:
        """How much is served, in fair order, until the caller has got so much more: others' and its own.

        Until its connection is served, of each caller at most as much is served as of its own.
        """
        connections = self._owners.get(caller.owner, {})
        own = connections.get(caller.connection, 0) + amount
        turn = own * (len(connections) + (caller.connection not in connections))
        others = sum(min(sum(held.values()), turn) for owner, held in self._owners.items() if owner != caller.owner)
        return others + min(sum(connections.values()) + amount, turn)
