"""Amounts of something limited that clients hold, and how much each of them may hold.

A client may hold at most four times what is free ("dynamic thresholds": Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998), and each of its connections at most four times what is free of that. So one client gets at most
about 80% of the whole, several divide it evenly, and a new client always finds some free.
"""

from serving.context import INTERNAL_CLIENT, ClientIdentity

MAX_MULTIPLE_OF_FREE = 4
"""A client may hold this many times what is free."""


def within_quota(amount: float, *, limit: float, free: float, owner: float, connection: float) -> bool:
    """Whether a client may take an amount in addition to what it holds.

    Args:
        amount: what it asks for.
        limit: most that all clients may hold.
        free: what no client holds.
        owner: what the client holds.
        connection: what it holds by the connection that asks.
    """
    left = min(limit, MAX_MULTIPLE_OF_FREE * free) - owner
    return amount <= left and connection + amount <= MAX_MULTIPLE_OF_FREE * left


class Holdings:
    """The amounts that clients hold, by their connections. Not thread-safe."""

    def __init__(self) -> None:
        self.total = 0
        """The amount that all clients hold."""
        self._owners: dict[str, dict[str, int]] = {}  # owner -> connection -> amount

    def of(self, client: ClientIdentity) -> tuple[int, int]:
        """What a client holds: by all its connections, and by this one."""
        connections = self._owners.get(client.owner)
        return (sum(connections.values()), connections.get(client.connection, 0)) if connections else (0, 0)

    def take(self, client: ClientIdentity, amount: int) -> None:
        """Count an amount, at least 0, as held by the client."""
        if not amount:
            return
        connections = self._owners.setdefault(client.owner, {})
        connections[client.connection] = connections.get(client.connection, 0) + amount
        self.total += amount

    def give_back(self, client: ClientIdentity, amount: int) -> None:
        """Count an amount, at least 0, as no longer held by the client."""
        if not amount:
            return
        connections = self._owners[client.owner]
        connections[client.connection] -= amount
        self.total -= amount
        if not connections[client.connection]:
            del connections[client.connection]
            if not connections:
                del self._owners[client.owner]

    def before(self, client: ClientIdentity, amount: int) -> int:
        """The amount of all clients that is served, in fair order, until this client has got `amount` more.

        Until a connection is served, each other client is served at most as much as the connection's client.
        """
        connections = self._owners.get(client.owner, {})
        own = connections.get(client.connection, 0) + amount
        turn = own * (len(connections) + (client.connection not in connections))
        others = sum(min(sum(held.values()), turn) for owner, held in self._owners.items() if owner != client.owner)
        return others + min(sum(connections.values()) + amount, turn)


class Quotas(Holdings):
    """A limited amount of something, divided between clients."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def admits(self, client: ClientIdentity, amount: int) -> bool:
        """Whether the client may take this much more. INTERNAL_CLIENT, this process itself, may take all."""
        free = self.limit - self.total
        if amount > free or client is INTERNAL_CLIENT:
            return amount <= free
        owner, connection = self.of(client)
        return within_quota(amount, limit=self.limit, free=free, owner=owner, connection=connection)
