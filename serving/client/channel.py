"""Addresses of servers in; what gRPC makes channels of, out.

An address, certificates and a token in; a gRPC channel out, for the sync and the asyncio client alike.
"""

import ipaddress
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from serving.system.network import stays_on_this_machine

DEFAULT_TIMEOUT_S = 30.0
IN_FLIGHT = 64
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


Options = Sequence[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a client shows, and whom it believes. All files are PEM. Nothing at all: plaintext, with no token.

    Raises:
        ValueError: if only one of `certificate` and `key` is given.
    """

    tls: bool = False
    """TLS with the authorities that gRPC brings along; any of the files below implies TLS."""
    ca: Path | None = None
    """Authorities that the server's certificate must come from."""
    certificate: Path | None = None
    """The client's certificate, for servers that ask for one."""
    key: Path | None = None
    """Its private key."""
    token: str = ""
    """Sent with every call, as a bearer token; only over TLS, or to this machine."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise ValueError(f"a TLS {given} was given without its {missing}; give both, or neither")

    def __repr__(self) -> str:  # without the token: representations end up in logs
        return f"Credentials(tls={self.encrypted}, ca={self.ca}, certificate={self.certificate})"

    def check(self, address: str) -> None:
        """Whether they can be used with HOST:PORT.

        Raises:
            ValueError: if a file cannot be read, or the token would travel in plaintext.
        """
        if self.token and not self.encrypted and not stays_on_this_machine(address):
            raise ValueError(
                f"the token would travel to {address} in plaintext, for all on the way to read; use TLS (--tls-ca)"
            )
        for path in (self.ca, self.certificate, self.key):
            if path is not None:
                _read(path)

    @property
    def encrypted(self) -> bool:
        """Whether the channel is to use TLS."""
        return self.tls or self.ca is not None or self.certificate is not None


ANONYMOUS = Credentials()


def open_channel(address: str, options: Options = (), credentials: Credentials = ANONYMOUS) -> grpc.Channel:
    """A channel to HOST:PORT.

    Raises:
        ValueError: if a file cannot be read, or a token would travel in plaintext.
    """
    credentials.check(address)
    if credentials.encrypted:
        return grpc.secure_channel(address, _secure(credentials), options)
    channel = grpc.insecure_channel(address, options)
    if not credentials.token:
        return channel
    return grpc.intercept_channel(channel, _SendToken(credentials.token))


def open_aio_channel(address: str, options: Options = (), credentials: Credentials = ANONYMOUS) -> grpc.aio.Channel:
    """The same for asyncio. Raises as `open_channel` does."""
    credentials.check(address)
    if credentials.encrypted:
        return grpc.aio.secure_channel(address, _secure(credentials), options)
    if not credentials.token:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.insecure_channel(address, options, interceptors=_aio_interceptors(credentials.token))


def read_token(path: Path) -> str:
    """The token in a file, without the line's end.

    Raises:
        ValueError: if the file cannot be read, or does not hold one word.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not text.isascii() or not text.isprintable() or len(text.split()) != 1:
        raise ValueError(f"the token file {path} must hold one token and nothing else")
    return text


def from_environment() -> Credentials:
    """What PAWSERVE_TOKEN or PAWSERVE_TOKEN_FILE, PAWSERVE_TLS_CA, PAWSERVE_TLS_CERT and PAWSERVE_TLS_KEY say.

    Raises:
        ValueError: if the token's file cannot be read, or a certificate is given without its key.
    """
    token = os.environ.get("PAWSERVE_TOKEN", "")
    if not token and (file := os.environ.get("PAWSERVE_TOKEN_FILE")):
        token = read_token(Path(file))
    paths = [
        Path(value) if (value := os.environ.get(f"PAWSERVE_TLS_{name}")) else None for name in ("CA", "CERT", "KEY")
    ]
    return Credentials(ca=paths[0], certificate=paths[1], key=paths[2], token=token)


def _secure(credentials: Credentials) -> grpc.ChannelCredentials:
    paths = credentials.ca, credentials.key, credentials.certificate
    contents = [None if path is None else _read(path) for path in paths]
    channel = grpc.ssl_channel_credentials(*contents)
    if not credentials.token:
        return channel
    return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(credentials.token))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _SendToken(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Adds the token where there is no TLS: gRPC's own call credentials need it, even on the loopback device."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def _send(self, continuation: Callable[..., Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._entry]
        with_token = _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(with_token, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _send


def _aio_interceptors(token: str) -> list[grpc.aio.ClientInterceptor]:
    """One for each kind of call: gRPC sorts them by their class, and takes each for one kind only."""

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
