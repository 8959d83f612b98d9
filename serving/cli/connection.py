"""Connections of the client commands: their options, credentials and errors."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    for name, text in (
        ("ca", "use TLS and trust these authorities ($PAWSERVE_TLS_CA)"),
        ("cert", "the client's certificate ($PAWSERVE_TLS_CERT)"),
        ("key", "the private key of --tls-cert ($PAWSERVE_TLS_KEY)"),
    ):
        default = os.environ.get(f"PAWSERVE_TLS_{name.upper()}") or None
        add(f"--tls-{name}", type=path, default=default, metavar="FILE", help=text)
    add(
        "--token-file",
        type=path,
        default=None if os.environ.get("PAWSERVE_TOKEN") else os.environ.get("PAWSERVE_TOKEN_FILE") or None,
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
        advice = "; give --token-file FILE, or set $PAWSERVE_TOKEN" if error.reason == "CREDENTIALS_MISSING" else ""
        raise CommandError(error.message + advice) from error


def _credentials(arguments: argparse.Namespace) -> Credentials:
    file = arguments.token_file
    return Credentials(
        tls=arguments.tls,
        ca=arguments.tls_ca,
        certificate=arguments.tls_cert,
        key=arguments.tls_key,
        token=_read_token(file) if file else os.environ.get("PAWSERVE_TOKEN", ""),
    )


def _read_token(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not text.isascii() or not text.isprintable() or len(text.split()) != 1:
        raise ValueError(f"the token file {path} must hold one token and nothing else")
    return text
