"""What a client proves its identity with, and which servers it trusts."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from serving.system.network import is_local


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """TLS files and a bearer token. All files are PEM. The default is plaintext without a token.

    Raises:
        ValueError: if only one of `certificate` and `key` is given.
    """

    tls: bool = False
    """Use TLS and trust the authorities that gRPC is built with. Any of the files below implies TLS."""
    ca: Path | None = None
    """Authorities that must have issued the server's certificate."""
    certificate: Path | None = None
    """The client's certificate, for servers that require one."""
    key: Path | None = None
    """The private key of `certificate`."""
    token: str = ""
    """Sent with every call as a bearer token. Allowed over TLS, and in plaintext to this machine only."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise ValueError(f"a TLS {given} was given without its {missing}; give both, or neither")

    def __repr__(self) -> str:  # without the token, since representations end up in logs
        return f"Credentials(tls={self.encrypted}, ca={self.ca}, certificate={self.certificate})"

    @property
    def encrypted(self) -> bool:
        """Whether the channel uses TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def check(self, address: str) -> None:
        """Check that these credentials can be used with a server.

        Raises:
            ValueError: if a file cannot be read, or the token would be sent to another machine in plaintext.
        """
        if self.token and not self.encrypted and not is_local(address):
            raise ValueError(
                f"the token would be sent to {address} in plaintext, where others can read it; use TLS (--tls-ca)"
            )
        for path in (self.ca, self.certificate, self.key):
            if path is not None:
                _read(path)

    def for_channel(self) -> grpc.ChannelCredentials:
        """gRPC's credentials for a TLS channel."""
        paths = self.ca, self.key, self.certificate
        channel = grpc.ssl_channel_credentials(*(None if path is None else _read(path) for path in paths))
        if not self.token:
            return channel
        return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(self.token))


ANONYMOUS = Credentials()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
