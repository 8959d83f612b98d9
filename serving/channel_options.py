"""The options by which the client commands name certificates and tokens, and the credentials that they stand for."""

import argparse
from dataclasses import replace
from pathlib import Path

import grpc

from serving.channel import Credentials, from_environment, read_token
from serving.client import ClientError


def add_channel_options(parser: argparse.ArgumentParser) -> None:
    """Certificates and token."""
    add = parser.add_argument_group("connection").add_argument
    add("--tls", action="store_true", help="use TLS, and believe the public authorities")
    add("--tls-ca", type=Path, metavar="FILE", help="use TLS, and believe these authorities ($PAWSERVE_TLS_CA)")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate to show to the server ($PAWSERVE_TLS_CERT)")
    add("--tls-key", type=Path, metavar="FILE", help="its private key ($PAWSERVE_TLS_KEY)")
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the token to send ($PAWSERVE_TOKEN_FILE, $PAWSERVE_TOKEN)",
    )


def to_credentials(arguments: argparse.Namespace) -> Credentials:
    """What the options say, and where they say nothing the environment.

    Raises:
        ClientError: if a file cannot be read, or a certificate is given without its key.
    """
    try:
        given = {
            "ca": arguments.tls_ca,
            "certificate": arguments.tls_cert,
            "key": arguments.tls_key,
            "token": read_token(arguments.token_file) if arguments.token_file else None,
        }
        named = {name: value for name, value in given.items() if value is not None}
        credentials = replace(from_environment(), tls=arguments.tls, **named)
        credentials.check(arguments.server)
    except ValueError as error:
        raise ClientError(grpc.StatusCode.INVALID_ARGUMENT, "", str(error)) from error
    return credentials
