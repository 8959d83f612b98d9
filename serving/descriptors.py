"""Connections that were asked for in; as many as this process has file descriptors for, and a warning, out.

Without a descriptor for one, gRPC tries to accept it again each second, and whoever connects waits in silence; and new
models and the statistics cannot be opened. With some left, connections beyond the limit are closed as they come.
"""

import logging
import resource
from dataclasses import replace

from serving.connections import Connections

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
