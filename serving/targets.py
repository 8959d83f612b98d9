"""Addresses of servers in; what gRPC makes channels of, out."""

import ipaddress
import json
from typing import Any

MAX_MESSAGE_BYTES = 32 * 2**20
RECONNECT_MS = 100
MAX_RECONNECT_MS = 2_000
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Names that may stand for several servers."""
_HEALTH_OF = "pawserve.v1.Classifier"


def to_target(addresses: str) -> str:
    """gRPC's name for the servers.

    Args:
        addresses: HOST:PORT; several IP addresses as "10.0.0.1:50051,10.0.0.2:50051"; or any name that gRPC knows,
            such as "dns:///pawserve:50051", whose addresses are all used.

    Raises:
        ValueError: if several addresses are not all of IPv4, or all of IPv6.
    """
    parts = [part.strip() for part in addresses.split(",")]
    if len(parts) == 1 or addresses.startswith(_SEVERAL):
        return addresses
    versions = {_ip_version(part) for part in parts}
    if versions not in ({4}, {6}):
        raise ValueError(
            f"{addresses!r}: several servers are named by their IP addresses with ports, all IPv4 or all IPv6, such as "
            "10.0.0.1:50051,10.0.0.2:50051; a host name that stands for several is dns:///NAME:PORT"
        )
    return f"ipv{versions.pop()}:{','.join(parts)}"


def split_target(target: str) -> list[str]:
    """One target for each server that is named by its address; names that stand for several are left whole."""
    scheme, _, addresses = target.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return [target]
    return addresses.split(",")


def channel_options(target: str) -> list[tuple[str, Any]]:
    """Options of a client's channel. Calls to several servers go round those that say of themselves that they are well.

    Args:
        target: as `to_target` gives it.
    """
    config: list[tuple[str, Any]] = []
    if target.startswith(_SEVERAL):
        turns = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": _HEALTH_OF}}
        config.append(("grpc.service_config", json.dumps(turns)))
        # what a name server says of load balancing would replace it
        config.append(("grpc.service_config_disable_resolution", 1))
    return [
        *config,
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),  # the server says what is too large for it
        # a server that restarts is found again soon
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
        # notice servers that vanished without a word while they owe an answer
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ]


def _ip_version(address: str) -> int | None:
    host, separator, port = address.rpartition(":")
    if not (separator and port.isascii() and port.isdigit()):
        return None
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version
    except ValueError:
        return None
