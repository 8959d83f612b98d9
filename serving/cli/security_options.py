"""Options of `serve` for TLS, authentication and reflection."""

import argparse

from serving.cli.options import path
from serving.security.settings import Security, TlsFiles


def add_security_options(parser: argparse.ArgumentParser) -> None:
    """TLS files, clients, keys and reflection."""
    add = parser.add_argument_group("security").add_argument
    add("--tls-cert", type=path, metavar="FILE", help="the server's certificate and its chain, PEM (plaintext)")
    add("--tls-key", type=path, metavar="FILE", help="its private key, PEM; both are reloaded when they change")
    add("--tls-client-ca", type=path, metavar="FILE", help="accept only clients with certificates of these authorities")
    add(
        "--clients",
        "--auth-tokens",
        type=path,
        metavar="FILE",
        help="allowed clients: lines of ROLE[,ROLE] NAME CREDENTIAL; reloaded when it changes (all clients)",
    )
    add(
        "--allow-plaintext-tokens",
        action="store_true",
        help="accept tokens without TLS from other machines too, behind a proxy or service mesh that encrypts",
    )
    add(
        "--token-key",
        type=path,
        metavar="FILE",
        help="keys that sign prediction tokens, the same for all replicas; reloaded when it changes (token.key in "
        "--state)",
    )
    add("--no-reflection", action="store_true", help="do not let clients list the services and their messages")


def to_security(arguments: argparse.Namespace) -> Security:
    """The settings that the options stand for.

    Raises:
        ValueError: if an option is given without another that it needs.
    """
    certificate, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca
    if (certificate is None) != (key is None):
        raise ValueError("--tls-cert and --tls-key belong together: give both, or neither for plaintext")
    if client_ca is not None and certificate is None:
        raise ValueError("--tls-client-ca requires client certificates, which needs --tls-cert and --tls-key")
    if arguments.allow_plaintext_tokens and arguments.clients is None:
        raise ValueError("--allow-plaintext-tokens has no effect without --clients; give both, or neither")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=client_ca) if certificate is not None else None
    return Security(tls=tls, clients=arguments.clients, plaintext_tokens=arguments.allow_plaintext_tokens)
