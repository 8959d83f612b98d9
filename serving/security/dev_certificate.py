"""A certificate authority and a server certificate for trying TLS, not for production."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serving.system.files import filling, write_atomically

VALID = timedelta(days=90)
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def write_dev_certificate(out: Path, names: Sequence[str] = ()) -> datetime:
    """Write ca.pem, server.pem and server.key (for its owner only). The authority's key is not kept.

    Args:
        out: the folder; it must not exist, or be empty.
        names: host names and IP addresses that the certificate is for, beside those of this machine.

    Returns:
        The end of the certificates' validity.

    Raises:
        ValueError: if `out` is not empty, or a name cannot be in a certificate.
        OSError: if a file cannot be written.
    """
    expires = datetime.now(UTC) + VALID
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pawserve development")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(issuer, issuer, authority_key, expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pawserve development server")])
    alternatives = [_alternative(name) for name in dict.fromkeys([*THIS_MACHINE, *names])]
    certificate = (
        _builder(subject, issuer, key, expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    with filling(out) as folder:
        write_atomically(folder / "ca.pem", authority.public_bytes(Encoding.PEM))
        write_atomically(folder / "server.pem", certificate.public_bytes(Encoding.PEM))
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(folder / "server.key", secret, mode=0o600)
    return expires


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, expires: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.now(UTC) - timedelta(hours=1),  # for machines whose clocks are late
        not_valid_after=expires,
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not name or not name.isascii() or any(character in name for character in " :/,"):
        raise ValueError(f"{name!r} is not a host name or an IP address; give one without a port, such as pets.example")
    return x509.DNSName(name)
