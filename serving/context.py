"""The current call and the client that made it: context variables that an interceptor sets for each gRPC call.

Inner layers read them for quotas, authorization, logs, metrics and traces. This module imports no gRPC.
"""

import itertools
import logging
import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_network
from typing import Any
from urllib.parse import unquote

from serving.system.logs import REQUEST_ID
from serving.system.network import parse_address


class Role(StrEnum):
    """What a client may do."""

    PREDICT = "predict"
    """Classify images."""
    LABEL = "label"
    """Record labels and read the statistics."""
    ADMIN = "admin"
    """Everything, including changing the server's models and reading its internals."""


ALL_ROLES = frozenset(Role)


class RoleMissing(PermissionError):
    """The client is known but lacks a role; `role` is the one it needs."""

    def __init__(self, name: str, role: Role, action: str) -> None:
        super().__init__(f"{name} may not {action}: that needs the role {role}; ask the server's operator for it")
        self.role = role


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """One client on one of its connections. Quotas belong to `owner`, so all its connections share them."""

    owner: str
    """The authenticated name, or without one the address: an IPv4 address or an IPv6 /64 network."""
    connection: str
    """The peer as gRPC names it."""
    roles: frozenset[Role] = ALL_ROLES

    def require(self, role: Role, action: str) -> None:
        """Check that the client has a role; administrators have all.

        Args:
            role: the role.
            action: what it is needed for; completes the sentence "NAME may not …".

        Raises:
            RoleMissing: if the client lacks it.
        """
        if role not in self.roles and Role.ADMIN not in self.roles:
            raise RoleMissing(self.owner, role, action)


INTERNAL_CLIENT = ClientIdentity("", "")
"""The identity of work that no call asked for, such as this process's own."""

CURRENT_CLIENT: ContextVar[ClientIdentity] = ContextVar("client", default=INTERNAL_CLIENT)
"""The client of the call that this task works for."""


@lru_cache(4096)  # most calls come from a connection that has been used before
def client_identity(peer: str, name: str, roles: frozenset[Role]) -> ClientIdentity:
    """Identify a client.

    Args:
        peer: as gRPC writes it: "ipv4:HOST:PORT", "ipv6:%5BHOST%5D:PORT" or "unix:PATH".
        name: the authenticated name; empty if there is none.
        roles: what the client may do.
    """
    return ClientIdentity(name or _address(peer), peer, roles)


def _address(peer: str) -> str:
    """The part of a peer's address that one client owns: the IPv4 address, the IPv6 /64 network, or the socket."""
    family, _, rest = unquote(peer).partition(":")
    if family == "ipv4":
        return parse_address(rest)[0]
    if family == "ipv6":
        host = parse_address(rest)[0].partition("%")[0]
        return str(ip_network(f"{host}/64", strict=False))  # a host with one IPv6 address usually has all 2^64 of them
    return peer


REQUEST_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
"""Request IDs that are accepted from clients: they are logged and sent back, so they must fit in one line."""

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)  # of the process: no two of its calls get the same request ID


@dataclass(slots=True)
class HttpExchange:
    """Facts of an HTTP request and its response for traces. Nothing of the query, which may hold secrets."""

    scheme: str
    """"http" or "https"."""
    path: str
    version: str
    """Version of the protocol, such as "1.1"."""
    client: str
    """The client's IP address; empty for a Unix socket."""
    port: int
    """Port that the server listens on; 0 for a Unix socket."""
    status: int = 0
    """Status of the response; 0 while there is none."""


@dataclass(slots=True, eq=False)
class Call:
    """One call from its start to its last response. Inner layers add to its counts."""

    method: str
    """Such as pawserve.v1.Classifier/Classify."""
    request_id: str
    began: float = field(default_factory=time.monotonic)
    images: int = 0
    """Images classified or failed one by one."""
    rows: int = 0
    """Rows admitted for them: images times views."""
    labels: int = 0
    """Labels recorded."""
    http: HttpExchange | None = None
    """The request and the response, of a call over HTTP."""
    trace: Any = None
    """The OpenTelemetry context of its span, if it is traced."""

    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.began


CURRENT_CALL: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that this task works for; tasks that it starts inherit it."""


def choose_request_id(given: object) -> str:
    """Return the client's request ID if it is well-formed, otherwise a new one that is unique among all servers."""
    if isinstance(given, str) and REQUEST_ID_PATTERN.fullmatch(given):
        return given
    return f"{_prefix}-{next(_numbers):x}"


def add_request_id(record: logging.LogRecord) -> bool:
    """Add the current call's request ID to a log record: a filter, which keeps all records."""
    call = CURRENT_CALL.get()
    if call is not None and not hasattr(record, REQUEST_ID):
        setattr(record, REQUEST_ID, call.request_id)
    return True
