"""Certificate files in; credentials for gRPC that follow the files, so that a renewed certificate needs no restart.

Connections that are open keep the certificate they began with; new ones get the new one.
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
"""Of the keys that gRPC's C core agrees on; the server's own is one of its kind, and takes no other from clients."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The files' contents, checked."""

    configuration: grpc.ServerCertificateConfiguration
    expires: datetime
    """When the server's certificate ends."""
    name: str
    """What the certificate is for, for people."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that look at the files again with new connections.

    Raises:
        ValueError: if a file cannot be read or understood, the certificate is over, or the key is not its key; once
            they are in use, that is logged, and the earlier ones stay.
    """
    try:
        reloading = Reloading("certificates", files.paths, lambda: load(files))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
    fetcher = _Fetcher(reloading)
    return grpc.dynamic_ssl_server_credentials(
        fetcher.given, fetcher, require_client_authentication=files.client_ca is not None
    )


def load(files: TlsFiles) -> Loaded:
    """Read and check the files.

    Raises:
        ValueError: as `server_credentials` says; no message tells anything of the key.
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
            f"{files.key} holds no private key that can be used:{encrypted} it must be plain PEM"
        ) from None
    if not _is_common(private_key):
        logger.warning(
            "the key %s is of a kind that gRPC for Python, C++ and others on its C core refuses in the handshake; "
            "make one of RSA, or of ECDSA on P-256 or P-384",
            files.key,
        )
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private_key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ValueError(f"{files.key} is not the key of {files.certificate}; give the two that were made together")
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        raise ValueError(f"{files.certificate} was valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        raise ValueError(f"{files.certificate} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
    authorities = None
    if files.client_ca is not None:
        authorities = _read(files.client_ca)
        _certificates(authorities, files.client_ca)
    return Loaded(
        grpc.ssl_server_certificate_configuration([(key, chain)], authorities),
        certificate.not_valid_after_utc,
        certificate.subject.rfc4514_string() or str(files.certificate),
    )


def _is_common(key: PrivateKeyTypes) -> bool:
    return isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES
    )


class _Fetcher:
    """Tells gRPC, at each new connection, whether there is another certificate."""

    def __init__(self, files: Reloading[Loaded]) -> None:
        self._files = files
        self._loaded = files.get()
        self._warned = -WARN_EVERY_S
        self._warn_if_it_ends_soon()

    @property
    def given(self) -> grpc.ServerCertificateConfiguration:
        """What gRPC was told last."""
        return self._loaded.configuration

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        loaded = self._files.get()
        if loaded is self._loaded:
            self._warn_if_it_ends_soon()
            return None
        self._loaded = loaded
        self._warned = -WARN_EVERY_S
        self._warn_if_it_ends_soon()
        logger.info("new connections see the certificate of %s, valid until %s", loaded.name, loaded.expires)
        return loaded.configuration

    def _warn_if_it_ends_soon(self) -> None:
        left = self._loaded.expires - datetime.now(UTC)
        if left < EXPIRES_SOON and time.monotonic() - self._warned >= WARN_EVERY_S:
            self._warned = time.monotonic()
            logger.warning(
                "the certificate of %s ends at %s, in %.1f days; renew it in its place, no restart is needed",
                self._loaded.name,
                self._loaded.expires,
                left.total_seconds() / 86_400,
            )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes; it is no PEM file")
    return content


def _certificates(content: bytes, path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
