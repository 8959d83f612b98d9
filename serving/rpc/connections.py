"""How the server treats connections: how often it looks after them, how long they live, what one may carry.

Connections that were asked for in; as many as this process has file descriptors for, and a warning, out.

Without a descriptor for one, gRPC tries to accept it again each second, and whoever connects waits in silence; and new
models and the statistics cannot be opened. With some left, connections beyond the limit are closed as they come.
"""

import logging
import resource
from dataclasses import dataclass, replace

MIN_PING_INTERVAL_MS = 10_000
LOOKAHEAD_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Limits of each connection, in gRPC's terms."""

    max_message_bytes: int = 32 * 2**20
    """Largest request or answer, in bytes."""
    max_connections: int = 10_000
    """Open at once; more are closed as they come. Each is a file descriptor of the server's."""
    max_concurrent_streams: int = 1024
    """Calls at once on one connection; more wait in the caller."""
    keepalive_s: float = 60.0
    """After how long a silence the server asks whether the other end is still there."""
    keepalive_timeout_s: float = 20.0
    """How long it waits for that answer, and for a new connection's first words, before it gives the connection up."""
    max_age_s: float = 3600.0
    """After how long a client is asked to connect again, so that load spreads to new replicas; 0 for never."""
    max_age_grace_s: float = 60.0
    """How long calls in flight may then go on."""

    def __post_init__(self) -> None:
        for name in ("max_message_bytes", "max_connections", "max_concurrent_streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("keepalive_s", "keepalive_timeout_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1 second")
        for name in ("max_age_s", "max_age_grace_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 seconds")

    def options(self) -> list[tuple[str, int]]:
        """For grpc.aio.server."""
        options = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            # without this a second server on the same port would silently take half of the calls
            ("grpc.so_reuseport", 0),
            # notice callers that vanished without a word, and allow callers to check on us as often
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout_s * 1000)),  # else the answer may take a minute
            # and those that connected and never said a word
            ("grpc.server_handshake_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            # by default a caller must wait for leave after each 64 KiB, which is a photo
            ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        ]
        if self.max_age_s:
            options += [
                ("grpc.max_connection_age_ms", round(self.max_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", round(self.max_age_grace_s * 1000)),
            ]
        return options


RESERVED = 256
"""Descriptors for everything but connections: models, statistics, logs, libraries."""

logger = logging.getLogger(__name__)


def within_descriptors(connections: Connections) -> Connections:
    """Raise this process's limit of open files as far as is needed and allowed, and fit `max_connections` to it."""
    needed = connections.max_connections + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return connections
    fits = max(allowed - RESERVED, allowed // 2)
    logger.warning(
        "at most %s files may be open at once, so connections are limited to %s, and not to %s (--max-connections); "
        "allow %s by `ulimit -n`, or LimitNOFILE of systemd, or ask for fewer connections",
        f"{allowed:,}",
        f"{fits:,}",
        f"{connections.max_connections:,}",
        f"{needed:,}",
    )
    return replace(connections, max_connections=fits)
