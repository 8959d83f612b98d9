"""Connections of the client commands: their options, credentials and errors."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from serving.cli.errors import CommandError
from serving.cli.options import add_numbers, path, seconds
from serving.client import Client, ClientError, Credentials
from serving.client.async_client import DEFAULT_TIMEOUT_S
from serving.system.network import DEFAULT_ADDRESS


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Address, timeout, TLS files and token."""
    parser.add_argument(
        "--server",
        default=os.environ.get("PAWSERVE_SERVER", DEFAULT_ADDRESS),
        metavar="HOST:PORT",
        help="the server, or unix:PATH; several as IP:PORT,IP:PORT or dns:///NAME:PORT ($PAWSERVE_SERVER, otherwise "
        f"{DEFAULT_ADDRESS})",
    )
    timeout = ("--timeout", seconds, DEFAULT_TIMEOUT_S, "S", "time for each request, retries included")
    add_numbers(parser.add_argument, [timeout])
    add = parser.add_argument_group("connection").add_argument
    add("--tls", action="store_true", help="use TLS and trust the public authorities")
    add("--tls-ca", type=path, metavar="FILE", help="use TLS and trust these authorities ($PAWSERVE_TLS_CA)")
    add("--tls-cert", type=path, metavar="FILE", help="the client's certificate ($PAWSERVE_TLS_CERT)")
    add("--tls-key", type=path, metavar="FILE", help="the private key of --tls-cert ($PAWSERVE_TLS_KEY)")
    add(
        "--token-file",
        type=path,
        metavar="FILE",
        help="holds the bearer token ($PAWSERVE_TOKEN_FILE; $PAWSERVE_TOKEN is the token itself)",
    )


@contextmanager
def open_client(arguments: argparse.Namespace) -> Iterator[Client]:
    """A client with the options of `add_client_options`, closed at the end of the block.

    Raises:
        CommandError: if the credentials cannot be used, or a ClientError leaves the block.
    """
    try:
        client = Client(arguments.server, timeout_s=arguments.timeout, credentials=_credentials(arguments))
    except ValueError as error:
        raise CommandError(str(error)) from error
    try:
        with client:
            yield client
    except ClientError as error:
        raise CommandError(error.message) from error


def _credentials(arguments: argparse.Namespace) -> Credentials:
    """The credentials of the options; of the environment where there is no option."""
    options = {
        "ca": arguments.tls_ca,
        "certificate": arguments.tls_cert,
        "key": arguments.tls_key,
        "token": _read_token(arguments.token_file) if arguments.token_file else None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return replace(_credentials_of_environment(), tls=arguments.tls, **given)


def _credentials_of_environment() -> Credentials:
    token = os.environ.get("PAWSERVE_TOKEN", "")
    if not token and (file := os.environ.get("PAWSERVE_TOKEN_FILE")):
        token = _read_token(Path(file).expanduser())
    ca, certificate, key = (
        Path(value).expanduser() if (value := os.environ.get(f"PAWSERVE_TLS_{name}")) else None
        for name in ("CA", "CERT", "KEY")
    )
    return Credentials(ca=ca, certificate=certificate, key=key, token=token)


def _read_token(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not text.isascii() or not text.isprintable() or len(text.split()) != 1:
        raise ValueError(f"the token file {path} must hold one token and nothing else")
    return text
