"""Which certificates a server shows and which clients it accepts.

Separate from `serving.security.tls`, so that a server without TLS does not load `cryptography`.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of a server's certificate."""

    certificate: Path
    """The server's certificate, followed by the intermediate certificates, if there are any."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """Authorities whose client certificates are accepted; every client must then show one (mutual TLS)."""

    @property
    def paths(self) -> list[Path]:
        """All files that are given."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]


@dataclass(frozen=True, kw_only=True)
class Security:
    """TLS and authentication of a server."""

    tls: TlsFiles | None = None
    """None: plaintext."""
    clients: Path | None = None
    """File of clients (format: serving/security/clients.py); None: every client may do everything."""
    plaintext_tokens: bool = False
    """Accept tokens without TLS from other machines too, for servers behind a proxy or a service mesh that encrypts."""
