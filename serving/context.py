"""Who asks: the name and roles that a call was authenticated with, and the connection that it came by.

The interceptor (serving/rpc/authentication.py) says it once for each call; whatever the call goes through may
ask for it.

The gRPC call that is being answered, as logs, metrics and traces know it. No gRPC here.
"""

import ipaddress
import itertools
import logging
import re
import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import unquote


class Role(StrEnum):
    """What a caller may do."""

    PREDICT = "predict"
    """Classify pictures."""
    LABEL = "label"
    """Record labels, and read the statistics."""
    ADMIN = "admin"
    """Everything, also what changes the server or tells of its inside."""


ALL_ROLES = frozenset(Role)


class RoleMissing(PermissionError):
    """The caller is known, but may not do this; `role` is what it would need."""

    def __init__(self, name: str, role: Role, what: str) -> None:
        super().__init__(f"{name} may not {what}: that needs the role {role}; ask the server's operator for it")
        self.role = role


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """One caller. Its connections share what is the caller's."""

    owner: str
    """Whom the call counts for: the authenticated name, or else the address (of IPv6 its /64 network)."""
    connection: str
    """The connection that it came by, as gRPC names its other end."""
    roles: frozenset[Role] = ALL_ROLES

    def require(self, role: Role, what: str) -> None:
        """Check that the caller has a role, or is an administrator.

        Args:
            role: the role.
            what: what it is needed for, to end the sentence "NAME may not …".

        Raises:
            RoleMissing: if it has not.
        """
        if role not in self.roles and Role.ADMIN not in self.roles:
            raise RoleMissing(self.owner, role, what)


INTERNAL_CLIENT = ClientIdentity("", "")
"""Who asks when no call does, such as this process itself."""

CURRENT_CLIENT: ContextVar[ClientIdentity] = ContextVar("caller", default=INTERNAL_CLIENT)
"""The caller of the call that this task answers."""


@lru_cache(4096)  # by far most calls come by a connection that has come before
def client_identity(peer: str, name: str, roles: frozenset[Role]) -> ClientIdentity:
    """The caller with a name, or with none, at the other end of a connection.

    Args:
        peer: as gRPC tells it: "ipv4:HOST:PORT", "ipv6:%5BHOST%5D:PORT", "unix:PATH".
        name: the authenticated name; empty if there is none.
        roles: what it may do.
    """
    return ClientIdentity(name or _address(peer), peer, roles)


def _address(peer: str) -> str:
    """Of a connection's other end what belongs to one caller: without the port, and of IPv6 the network."""
    family, _, rest = unquote(peer).partition(":")
    if family == "ipv4":
        return rest.rpartition(":")[0]
    if family == "ipv6":
        host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
        # whoever has one IPv6 address has 2^64 of them
        return str(ipaddress.ip_network(f"{host}/64", strict=False))
    return peer


REQUEST_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
"""What is taken over from callers: it is written to logs and sent back, so it must fit in a line of them."""

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


class Call:
    """One call, from its arrival to its last answer. Inner layers add what they did for it."""

    __slots__ = ("began", "images", "labels", "method", "request_id", "rows", "trace")

    def __init__(self, method: str, request_id: str) -> None:
        self.method = method
        """pawserve.v1.Classifier/Classify."""
        self.request_id = request_id
        self.began = time.monotonic()
        self.images = 0
        """Pictures classified, or refused one by one."""
        self.rows = 0
        """Rows admitted for them: pictures times views."""
        self.labels = 0
        """Labels recorded."""
        self.trace: Any = None
        """The OpenTelemetry context of its span, if it is traced."""

    def elapsed_s(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.began


CURRENT_CALL: ContextVar[Call | None] = ContextVar("CURRENT_CALL", default=None)
"""The call that this task works for; tasks that it starts see it too."""


def choose_request_id(given: object) -> str:
    """The caller's ID if it is one; else a new one, unique among all servers and starts."""
    if isinstance(given, str) and REQUEST_ID_PATTERN.fullmatch(given):
        return given
    return f"{_prefix}-{next(_numbers):x}"


class CallFilter(logging.Filter):
    """Adds `request_id` to what is logged while a call is being answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        call = CURRENT_CALL.get()
        if call is not None and not hasattr(record, "request_id"):
            record.request_id = call.request_id
        return True
