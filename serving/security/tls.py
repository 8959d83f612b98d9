"""TLS credentials that follow the certificate files, so that a renewed certificate needs no restart.

Open connections keep the certificate they began with; new connections get the new one.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from serving.security.settings import TlsFiles
from serving.system.reloading import Reloading

EXPIRES_SOON = timedelta(days=14)
WARN_EVERY_S = 24 * 3600.0
MAX_FILE_BYTES = 2**20
CURVES = ("secp256r1", "secp384r1")
"""Curves of the ECDSA keys that gRPC's C core, of servers and clients, accepts."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificate:
    """The checked contents of the files."""

    configuration: grpc.ServerCertificateConfiguration
    expires: datetime
    """End of the server certificate's validity."""
    name: str
    """The certificate's subject, for messages."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that check the files again at new connections.

    Raises:
        ValueError: if a file cannot be read or parsed, the certificate is not valid now, or the key is not its key.
            When files in use change to such a state, that is logged and the earlier contents stay in use.
    """
    try:
        reloading = Reloading("certificates", files.paths, lambda: load(files))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
    fetcher = _CertificateFetcher(reloading)
    return grpc.dynamic_ssl_server_credentials(
        fetcher.configuration, fetcher, require_client_authentication=files.client_ca is not None
    )


def load(files: TlsFiles) -> Certificate:
    """Read and check the files.

    Raises:
        ValueError: see `server_credentials`; no message reveals anything of the key.
        OSError: if a file cannot be read.
    """
    chain = _read(files.certificate)
    certificate = _certificates(chain, files.certificate)[0]
    key = _read(files.key)
    try:
        private_key = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        encrypted = " encrypted;" if isinstance(error, TypeError) else ""
        raise ValueError(
            f"{files.key} holds no usable private key:{encrypted} it must be PEM without a password"
        ) from None
    if not _is_widely_supported(private_key):
        logger.warning(
            "clients with gRPC's C core, such as Python and C++, reject the type of the key %s in the handshake; "
            "use RSA, or ECDSA on P-256 or P-384",
            files.key,
        )
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private_key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ValueError(f"{files.key} does not belong to {files.certificate}; give a certificate and its own key")
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        raise ValueError(
            f"{files.certificate} has expired: it was valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    if certificate.not_valid_before_utc > now:
        raise ValueError(
            f"{files.certificate} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        )
    authorities = None
    if files.client_ca is not None:
        authorities = _read(files.client_ca)
        _certificates(authorities, files.client_ca)
    return Certificate(
        grpc.ssl_server_certificate_configuration([(key, chain)], authorities),
        certificate.not_valid_after_utc,
        certificate.subject.rfc4514_string() or str(files.certificate),
    )


def _is_widely_supported(key: PrivateKeyTypes) -> bool:
    return isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES
    )


class _CertificateFetcher:
    """Gives gRPC a new certificate at the first connection after it has changed."""

    def __init__(self, files: Reloading[Certificate]) -> None:
        self._files = files
        self._loaded = files.get()
        self._warned_at = -WARN_EVERY_S
        self._warn_before_expiry()

    @property
    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The configuration in use."""
        return self._loaded.configuration

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration; None if nothing has changed."""
        previous, self._loaded = self._loaded, self._files.get()
        if changed := self._loaded is not previous:
            self._warned_at = -WARN_EVERY_S
            name, expires = self._loaded.name, self._loaded.expires
            logger.info("new connections get the certificate of %s, valid until %s", name, expires)
        self._warn_before_expiry()
        return self.configuration if changed else None

    def _warn_before_expiry(self) -> None:
        left = self._loaded.expires - datetime.now(UTC)
        if left < EXPIRES_SOON and time.monotonic() - self._warned_at >= WARN_EVERY_S:
            self._warned_at = time.monotonic()
            logger.warning(
                "the certificate of %s expires at %s, in %.1f days; replace its file, no restart is needed",
                self._loaded.name,
                self._loaded.expires,
                left.total_seconds() / 86_400,
            )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes; it is not a PEM file")
    return content


def _certificates(content: bytes, path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
