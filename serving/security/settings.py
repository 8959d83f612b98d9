"""What protects a server: how its port is opened, who may call, and what is refused at the start as unsafe."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import grpc

from serving.rpc.authentication import Authentication
from serving.security.access import load_access
from serving.security.tls_files import TlsFiles
from serving.system.network import stays_on_this_machine
from serving.system.reloading import Reloading


@dataclass(frozen=True, kw_only=True)
class Security:
    """What callers must show, and what they are shown.

    Raises:
        ValueError: if tokens would be taken in plaintext from other machines.
    """

    tls: TlsFiles | None = None
    """None: plaintext."""
    access: Path | None = None
    """File of callers (see serving/security/access.py); None: everybody may do everything."""
    plaintext_tokens: bool = False
    """Take tokens without TLS from other machines too: where a proxy or a service mesh encrypts."""

    def interceptor(self, listen: str) -> Authentication:
        """What authenticates the calls of a server that listens on HOST:PORT.

        Raises:
            ValueError: if the file of callers cannot be used, or tokens would travel in plaintext.
        """
        certificates = self.tls is not None and self.tls.client_ca is not None
        if self.access is None:
            return Authentication(None, client_certificates=certificates)
        path = self.access
        if self.tls is None and not self.plaintext_tokens and not stays_on_this_machine(listen):
            raise ValueError(
                f"tokens for {listen} would travel in plaintext; give --tls-cert and --tls-key, listen on 127.0.0.1, "
                "or say --allow-plaintext-tokens where something in front of the server encrypts"
            )
        try:
            access = Reloading("callers", [path], lambda: load_access(path))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if access.get().certificates and not certificates:
            raise ValueError(f"{path} knows callers by their certificates; that needs --tls-client-ca")
        return Authentication(access, client_certificates=certificates)

    def add_port(self, server: grpc.aio.Server, listen: str) -> int:
        """Open HOST:PORT, and return the port.

        Raises:
            ValueError: if the certificate cannot be used.
            RuntimeError: if the port is taken, or is not this machine's.
        """
        if self.tls is None:
            return int(server.add_insecure_port(listen))
        # here, so that a server without TLS need not load what reads certificates
        from serving.security.tls import server_credentials

        return int(server.add_secure_port(listen, server_credentials(self.tls)))


def to_security(arguments: argparse.Namespace) -> Security:
    """What the options of `serve` say.

    Raises:
        ValueError: if options are given without those that they belong to.
    """
    certificate, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca
    if (certificate is None) != (key is None):
        raise ValueError("--tls-cert and --tls-key belong together: give both, or neither for plaintext")
    if client_ca is not None and certificate is None:
        raise ValueError("--tls-client-ca asks clients for certificates, which needs --tls-cert and --tls-key")
    if arguments.allow_plaintext_tokens and arguments.auth_tokens is None:
        raise ValueError("--allow-plaintext-tokens says how tokens may come, and no --auth-tokens asks for any")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=client_ca) if certificate is not None else None
    return Security(tls=tls, access=arguments.auth_tokens, plaintext_tokens=arguments.allow_plaintext_tokens)
