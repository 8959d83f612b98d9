"""The settings of a server, as plain dataclasses."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from serving.bundle.shadow_version import ShadowVersion
from serving.observability.settings import ObservabilitySettings
from serving.security.settings import Security
from serving.web.settings import HttpSettings

if TYPE_CHECKING:  # its module loads the inference libraries
    from serving.models.loader import ServingOptions

LOOKAHEAD_BYTES = 4 * 2**20
RESERVED_FILES = 256
"""File descriptors for everything but connections: models, statistics, logs, libraries."""

HTTP_SHARE = 5
"""HTTP has one connection for so many of gRPC."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits of client connections."""

    max_message_bytes: int = 32 * 2**20
    """Largest request or response, in bytes."""
    max_connections: int = 10_000
    """Most open connections, one file descriptor each; further ones are closed when they are accepted."""
    max_concurrent_streams: int = 1024
    """Most calls in flight on one connection; further ones wait in the client."""
    keepalive_s: float = 60.0
    """Idle time after which the server pings a client."""
    keepalive_timeout_s: float = 20.0
    """Time to wait for the reply to a ping, and for a new connection's handshake, before the connection is closed."""
    min_ping_interval_s: float = 4.0
    """Least time between two pings of a client that has no call; clients that ping more often are disconnected
    (too_many_pings). Less than the 5 s of the most eager common clients, since pings may arrive early."""
    max_age_s: float = 3600.0
    """Age at which a client is asked to reconnect, so that load spreads to new replicas; 0 for never."""
    max_age_grace_s: float = 60.0
    """Time that calls in flight on such a connection still get."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            minimum = 0 if name.startswith(("max_age", "min_ping")) else 1
            if value < minimum:
                raise ValueError(f"{name} is {value}; it must be at least {minimum}")

    def fit_open_files(self, others: int = 0) -> ConnectionLimits:
        """Raise this process's limit of open files as far as needed and allowed, and fit `max_connections` to it.

        Args:
            others: further connections that need a descriptor each.

        Without a free descriptor gRPC retries to accept a connection each second while the client waits in silence, and
        new models and the statistics cannot be opened. With some in reserve, connections beyond the limit are closed.
        """
        reserved = RESERVED_FILES + others
        needed = self.max_connections + reserved
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return self
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed == needed:
            return self
        fits = max(allowed - reserved, allowed // 2)
        logger.warning(
            "at most %s files may be open at once, so connections are limited to %s instead of %s (--max-connections); "
            "allow %s with `ulimit -n` or systemd's LimitNOFILE, or lower --max-connections",
            f"{allowed:,}",
            f"{fits:,}",
            f"{self.max_connections:,}",
            f"{needed:,}",
        )
        return replace(self, max_connections=fits)

    def grpc_options(self, *, reuse_port: bool = False) -> list[tuple[str, int]]:
        """The options for `grpc.aio.server`.

        Args:
            reuse_port: whether other processes may listen on the same port.
        """
        options = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            # otherwise a second server on the same port would silently take half of the calls
            ("grpc.so_reuseport", int(reuse_port)),
            # detect clients that vanished, and allow clients to detect a server that did
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout_s * 1000)),  # the default is a minute
            # close connections that never complete a handshake
            ("grpc.server_handshake_timeout_ms", round(self.keepalive_timeout_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.min_ping_interval_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
            # the default window is 64 KiB, less than one image, so that a client would wait for leave to go on
            ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        ]
        if self.max_age_s:
            options += [
                ("grpc.max_connection_age_ms", round(self.max_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", round(self.max_age_grace_s * 1000)),
            ]
        return options


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server serves, where, and within which limits."""

    models: Path
    """Folder of NAME/VERSION/model.json."""
    wanted: tuple[str, ...] = ()
    """"NAME" or "NAME/VERSION"; empty for the newest version of every name."""
    keep_versions: int = 1
    """How many of the newest versions of a name are served, unless `wanted` names one."""
    shadows: tuple[ShadowVersion, ...] = ()
    """Versions that classify a share of the images too, after the answer; at most one of each name."""
    poll_s: float = 5.0
    """Seconds between two checks for new versions; 0 to check only on request."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT, where port 0 takes a free one, or unix:PATH."""
    http: HttpSettings = field(default_factory=HttpSettings)
    reuse_port: bool = False
    """Whether other processes of the same server listen on the same ports (SO_REUSEPORT), which their supervisor has
    reserved."""
    state: Path = Path("state")
    """Folder of the statistics and the key that signs tokens; created if it does not exist."""
    statistics: str = field(default="", repr=False)
    """URL or path of the statistics database, which may hold a password; empty for statistics.sqlite in `state`."""
    retention_days: float | None = None
    """Days after their prediction that single labels are kept; None for ever. Totals are always kept."""
    token_key: Path | None = None
    """File of the keys that sign tokens; None for token.key in `state`."""
    options: ServingOptions
    max_views: int = 16
    """Most views that a request may ask for."""
    default_views: int | None = 1
    """Views of an image where a request names no number; None for the number that each bundle recommends."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    security: Security = field(default_factory=Security)
    max_bytes_in_flight: int = 512 * 2**20
    """Most bytes of encoded images held at once: the limit of views in flight does not bound their size."""
    reflection: bool = True
    """Whether clients may list the services and their messages."""
    grace_s: float = 20.0
    """Seconds that a shutdown waits for calls in flight."""
    observability: ObservabilitySettings = field(default_factory=ObservabilitySettings)

    @property
    def addresses(self) -> list[str]:
        """All addresses that clients call."""
        return [address for address in (self.listen, self.http.listen) if address is not None]

    @property
    def max_http_connections(self) -> int:
        """Most connections of HTTP clients; 0 without HTTP."""
        return 0 if self.http.listen is None else max(1, self.connections.max_connections // HTTP_SHARE)
