"""The files of a server's certificate."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where the server's certificate is; all in PEM."""

    certificate: Path
    """The server's certificate, then those that lead to the authority, if there are any."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """Authorities whose client certificates are accepted; every client must then show one (mutual TLS)."""

    @property
    def paths(self) -> list[Path]:
        """All that are given."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]
