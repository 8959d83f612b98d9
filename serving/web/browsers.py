"""What browsers need: protection from other origins, CORS for those that are allowed, and headers of pages.

A browser sends simple requests of any page to any server, and lets pages under their own name reach a local server if
that name resolves to 127.0.0.1 (DNS rebinding). Fetch standard: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Scope, Send

from serving.api.errors import ApiError, Code, invalid
from serving.system.network import UNIX, is_local
from serving.web.settings import parse_origin

METHODS = "GET, POST, OPTIONS"
MAY_SEND = "authorization, content-type, content-encoding, inference-header-content-length, traceparent, x-request-id"
MAY_READ = "inference-header-content-length, retry-after, www-authenticate, x-request-id"
PREFLIGHT_S = 600
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
}
"""Headers of our pages: nothing comes from another origin, and no other page may frame them."""

_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; sandbox"
REPORT_HEADERS = {**PAGE_HEADERS, "content-security-policy": _REPORT_POLICY}
"""Headers of a report that came with a bundle: it has styles and images of its own, and nothing in it may run."""


class Origins:
    """Which requests of browsers are answered.

    Args:
        listen: the address that the server listens on.
        allowed: origins of other pages that may call it.

    Raises:
        ValueError: if an origin is malformed.
    """

    def __init__(self, listen: str, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(map(parse_origin, allowed))
        names = {str(urlsplit(origin).hostname) for origin in self._allowed}
        self._hosts = {"localhost", *names} if is_local(listen) and not listen.startswith(UNIX) else None

    def check(self, scope: Scope, headers: Headers) -> str:
        """Check where a request comes from.

        Returns:
            The origin that gets CORS headers; "" if it needs none.

        Raises:
            ApiError: if the request may not be answered.
        """
        host = headers.get("host", "")
        if self._hosts is not None and not self._is_own(host):
            message = f"the server listens only on this machine and does not answer to the host {host[:100]!r}; call "
            message += "127.0.0.1 or localhost, or allow it with --http-origin"
            raise invalid("HOST_NOT_ALLOWED", message, "")
        origin = headers.get("origin")
        if origin is None or origin == f"{scope['scheme']}://{host}":
            return ""
        if origin in self._allowed:
            return origin
        message = f"pages of {origin[:100]!r} may not call this server; the operator can allow that with --http-origin"
        raise ApiError(Code.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED", message)

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        return not host or name in (self._hosts or ()) or _is_address(name)


def preflight() -> Response:
    """The response to a browser that asks what it may send."""
    headers = {
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": MAY_SEND,
        "access-control-max-age": str(PREFLIGHT_S),
    }
    return Response(status_code=204, headers=headers)


def with_headers(send: Send, added: Iterable[tuple[bytes, bytes]]) -> Send:
    """Add headers to a response."""

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_with


def cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """The headers that let a page of another origin read a response."""
    return [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-expose-headers", MAY_READ.encode()),
        (b"vary", b"origin"),
    ]


@lru_cache(1024)
def _name_of(host: str) -> str:
    """The name or address in a Host header; "" if there is none."""
    try:
        return "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(1024)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
