"""gRPC channels to one server or several: target names, options, proxies and the bearer token."""

import ipaddress
import json
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc

from serving.client.credentials import ANONYMOUS, Credentials
from serving.system.network import is_local, parse_address

MAX_MESSAGE_BYTES = 32 * 2**20
RECONNECT_MS = 100
MAX_RECONNECT_MS = 2_000
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Schemes of targets that may stand for several servers."""
_PROXY = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY = ("no_grpc_proxy", "no_proxy")
"""Environment variables in the order in which gRPC reads them; it uses the first one that is not empty."""
_HEALTH_SERVICE = "pawserve.v1.Classifier"


def to_target(addresses: str) -> str:
    """Convert addresses to a gRPC target.

    Args:
        addresses: HOST:PORT; several IP addresses as "10.0.0.1:50051,10.0.0.2:50051"; or any gRPC target, such as
            "dns:///pawserve:50051", of which all addresses are used.

    Raises:
        ValueError: if several addresses are neither all IPv4 nor all IPv6.
    """
    parts = [part.strip() for part in addresses.split(",")]
    if len(parts) == 1 or addresses.startswith(_SEVERAL):
        return addresses
    versions = {_ip_version(part) for part in parts}
    if versions not in ({4}, {6}):
        raise ValueError(
            f"{addresses!r}: name several servers by their IP addresses with ports, all IPv4 or all IPv6, such as "
            "10.0.0.1:50051,10.0.0.2:50051; for a host name that stands for several servers use dns:///NAME:PORT"
        )
    return f"ipv{versions.pop()}:{','.join(parts)}"


def split_target(target: str) -> list[str]:
    """One target for each server that is named by its IP address. Other targets are returned whole."""
    scheme, _, addresses = target.partition(":")
    return addresses.split(",") if scheme in ("ipv4", "ipv6") else [target]


def open_aio_channel(target: str, credentials: Credentials = ANONYMOUS) -> grpc.aio.Channel:
    """Open an asyncio channel. Connections are made at the first call, and again after they broke.

    Args:
        target: as `to_target` returns it.

    Raises:
        ValueError: if a file cannot be read, or the token would be sent to another machine in plaintext.
    """
    credentials.check(target)
    options = _options(target)
    if credentials.encrypted:
        return grpc.aio.secure_channel(target, credentials.for_channel(), options)
    interceptors = token_interceptors(credentials.token) if credentials.token else None
    return grpc.aio.insecure_channel(target, options, interceptors=interceptors)


def _options(target: str) -> list[tuple[str, Any]]:
    """Options of the channel. Calls rotate over the servers that report themselves healthy."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),  # the server rejects what is too large for it
        # reconnect soon after a server restarted
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
        # notice a server that vanished during a call without closing the connection
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ]
    if is_this_machine(target):
        options.append(("grpc.enable_http_proxy", 0))
    if target.startswith(_SEVERAL):
        config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": _HEALTH_SERVICE}}
        options.append(("grpc.service_config", json.dumps(config)))
        # otherwise a service config from DNS replaces ours
        options.append(("grpc.service_config_disable_resolution", 1))
    return options


def is_this_machine(target: str) -> bool:
    """Whether a server of a target is on this machine: loopback addresses, 0.0.0.0 and [::], and Unix sockets."""
    return any(is_local(each) or each.rpartition(":")[0] in ("0.0.0.0", "[::]") for each in _addresses(target))


def describe_proxy(target: str) -> str:
    """The HTTP proxy through which gRPC reaches a target, without its password; empty if there is none."""
    name, url = _first_set(_PROXY)
    if not url or is_this_machine(target) or any(map(_bypasses_proxy, _addresses(target))):
        return ""
    proxy = urlsplit(url)
    return f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]} (environment variable {name})"


def _first_set(variables: Sequence[str]) -> tuple[str, str]:
    """The first environment variable that is not empty, and its value."""
    return next(((name, value) for name in variables if (value := os.environ.get(name))), ("", ""))


def _addresses(target: str) -> list[str]:
    """The addresses in a target, such as HOST:PORT."""
    scheme, _, addresses = target.partition(":")
    return addresses.rpartition("/")[2].split(",") if f"{scheme}:" in _SEVERAL else [target]


def _bypasses_proxy(address: str) -> bool:
    """Whether no_grpc_proxy or no_proxy names an address: as the end of its name, or as a network that it is in."""
    host = address.rpartition(":")[0].strip("[]").lower()
    for name in _first_set(_NO_PROXY)[1].lower().split(","):
        if name.strip() and host.endswith(name.strip()):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


def _ip_version(address: str) -> int | None:
    try:
        return ipaddress.ip_address(parse_address(address)[0]).version
    except ValueError:
        return None


def token_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors that add the token to plaintext calls.

    gRPC's own call credentials require TLS, even on the loopback device. gRPC sorts interceptors by their class and
    uses each for one kind of call, so there is one for each kind.
    """

    async def send(self: Any, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {token}"))
        return await continuation(details._replace(metadata=metadata), request)

    kinds = {
        "intercept_unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
        "intercept_unary_stream": grpc.aio.UnaryStreamClientInterceptor,
        "intercept_stream_unary": grpc.aio.StreamUnaryClientInterceptor,
        "intercept_stream_stream": grpc.aio.StreamStreamClientInterceptor,
    }
    return [type("SendToken", (base,), {method: send})() for method, base in kinds.items()]
