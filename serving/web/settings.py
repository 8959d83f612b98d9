"""The settings of the HTTP server, without its libraries, since all commands load this module."""

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_ADDRESS = "127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Addresses and browsers that a server answers over HTTP."""

    listen: str | None = None
    """HOST:PORT, where port 0 takes a free one, or unix:PATH; None for no HTTP."""
    required: bool = True
    """Whether the start fails if the address is taken; otherwise there is a warning and no HTTP."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may call the server, such as https://app.example.com."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Limits of an HTTP server."""

    max_connections: int = 2_000
    """Most open connections; further ones are closed."""
    max_body_bytes: int = 32 * 2**20
    """Largest body, as sent and uncompressed."""
    max_bodies_bytes: int = 512 * 2**20
    """Most bytes of bodies in memory, of which each client has a quota."""
    unread_s: float = 20.0
    """Seconds after which a client that reads no response, or has vanished, is disconnected."""
    head_s: float = 10.0
    """Seconds for the request line and headers, from the connection or the request's first byte."""
    max_head_bytes: int = 64 * 1024
    """Most bytes of them."""
    max_url_bytes: int = 16 * 1024
    """Most bytes of the path and query."""
    max_headers: int = 100
    """Most headers of a request."""
    body_s: float = 20.0
    """Seconds for a body, beyond those for what has arrived."""
    body_bytes_per_s: int = 16 * 1024
    """Bytes of a body that give it one more second."""
    idle_s: int = 75
    """Seconds that a connection stays open after a response."""
    linger_s: float = 5.0
    """Seconds that the rest of a body is read and thrown away after an early response, so that the client sees it."""
    drain_idle_s: float = 0.5
    """Seconds that idle connections are kept at the stop, so that a request that is on its way is answered."""
    check_s: float = 1.0
    """Seconds between two checks of these times."""


def parse_origin(text: str) -> str:
    """Check SCHEME://HOST[:PORT].

    Raises:
        ValueError: for any other text.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{text!r} is not an origin; write https://HOST or http://HOST:PORT, without a path")
    return text.lower()
