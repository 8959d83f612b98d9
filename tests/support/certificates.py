"""Certificates for tests: an authority that signs for servers and clients on this machine."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; `path` is the file of its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        certificate = self._sign(self._key, self._name, days=100, authority=True, names=[])
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        file: str,
        common_name: str = "server",
        *,
        days: float = 90,
        names: tuple[str, ...] = (),
        key: Key | None = None,
        for_this_machine: bool = True,
    ) -> Pair:
        """Write FILE.pem and FILE.key for this machine and for further names. Existing files are replaced whole."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        this_machine = x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        alternatives = [*(this_machine if for_this_machine else ()), *map(x509.DNSName, names)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._sign(key, subject, days=days, authority=False, names=alternatives)
        pair = Pair(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for path, text in ((pair.key, content), (pair.certificate, certificate.public_bytes(Encoding.PEM))):
            temporary = path.with_suffix(".new")
            temporary.write_bytes(text)
            temporary.replace(path)
        return pair

    def _sign(
        self,
        key: Key,
        subject: x509.Name,
        *,
        days: float,
        authority: bool,
        names: list[x509.GeneralName],
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
