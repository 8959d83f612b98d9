"""Words of a command line in; numbers in their ranges, or what is wrong with the word, out.

The options by which the client commands name certificates and tokens, and the credentials that they stand for.

The environment in; a refusal of variables that are meant for pawserve, but that nothing reads, out.

For commands that must clear up when they are ended: SIGINT, SIGTERM and SIGHUP, once, as an exception.

A file descriptor that somebody reads from in; BrokenPipeError, as soon as nobody does any more, out.

Who writes learns that from the next write. Who has nothing to write for an hour would wait for it that long.
"""

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from types import FrameType

import grpc

from serving.bundle.model_version import parse_resource, parse_short_name, resource_name
from serving.client import ClientError, Credentials

DAY_S = 86_400.0
MOST_WHOLE = 2**31 - 1
"""What gRPC, like most libraries, keeps whole numbers in."""
MOST_PORT = 65_535


def whole(most: int = MOST_WHOLE) -> Callable[[str], int]:
    """A parser of whole numbers from 1 to `most`, which raises ArgumentTypeError for anything else."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most:,}")
        return int(text)

    return parse


positive = whole()


def number(unit: str, least: float, most: float, *, above: float = -inf) -> Callable[[str], float]:
    """A parser of numbers of a unit, from `least` (and more than `above`) to `most`; it raises ArgumentTypeError."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (least <= value <= most and value > above):
            lower = f"above {above:g}" if above >= least else f"from {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} {lower} to {most:g}")
        return value

    return parse


seconds = number("seconds", 0, DAY_S)


def address(text: str) -> str:
    """HOST:PORT. Raises ArgumentTypeError for anything else: gRPC would take the port modulo 65,536."""
    host, _, port = text.rpartition(":")
    if not host or host.startswith("unix") or not (port.isascii() and port.isdigit() and int(port) <= MOST_PORT):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address; write HOST:PORT, such as 0.0.0.0:50051 or [::1]:50051, with a port up to 65535"
        )
    return text


def model_resource(text: str) -> str:
    """The resource name of NAME or NAME/VERSION; "" and resource names stay. Raises ArgumentTypeError for others."""
    try:
        if text.startswith("models/"):
            parse_resource(text)
            return text
        return resource_name(*parse_short_name(text)) if text else ""
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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


def read_token(path: Path) -> str:
    """Read the token in a file, without the end of its line.

    Raises:
        ValueError: if the file cannot be read, or does not hold exactly one word.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not text.isascii() or not text.isprintable() or len(text.split()) != 1:
        raise ValueError(f"the token file {path} must hold one token and nothing else")
    return text


def from_environment() -> Credentials:
    """The credentials that PAWSERVE_TOKEN, PAWSERVE_TOKEN_FILE and PAWSERVE_TLS_{CA,CERT,KEY} name.

    Raises:
        ValueError: if the token file cannot be read, or a certificate is given without its key.
    """
    token = os.environ.get("PAWSERVE_TOKEN", "")
    if not token and (file := os.environ.get("PAWSERVE_TOKEN_FILE")):
        token = read_token(Path(file))
    paths = [
        Path(value) if (value := os.environ.get(f"PAWSERVE_TLS_{name}")) else None for name in ("CA", "CERT", "KEY")
    ]
    return Credentials(ca=paths[0], certificate=paths[1], key=paths[2], token=token)


PREFIX = "PAWSERVE_"
KNOWN = (
    "ENGINES",
    "PHOTOS",
    "SERVER",
    "STATISTICS",
    "STATISTICS_FILE",
    "TLS_CA",
    "TLS_CERT",
    "TLS_KEY",
    "TOKEN",
    "TOKEN_FILE",
)
"""What is read, without PREFIX."""
ALIKE = 0.82
"""As difflib counts it. Others are left alone, since Kubernetes makes some of its own for a service of that name, such
as PAWSERVE_SERVICE_HOST."""


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a variable whose name is nearly one that is read: a server without its database would start as well.

    Raises:
        ValueError: naming both.
    """
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given == name or given in KNOWN:
            continue
        if meant := get_close_matches(given, KNOWN, n=1, cutoff=ALIKE):
            raise ValueError(f"nothing reads the environment's {name}; did you mean {PREFIX}{meant[0]}? Else unset it")


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def clearing_up() -> Iterator[None]:
    """Within the block each of the three raises SystemExit with 128 and its number, as shells tell of a signal.

    Later ones are ignored, so that none disturbs the clearing up. What is ignored already, as `nohup` ignores SIGHUP,
    stays so. For the main thread.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        before.clear()  # as the process ends, they stay ignored
        sys.exit(128 + number)

    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_once_nobody_reads(descriptor: int) -> None:
    """Let the main thread, which is the one to call this, raise BrokenPipeError then.

    Args:
        descriptor: of a pipe or socket; of others, nothing ever happens.
    """
    signal.signal(signal.SIGPIPE, _raise)
    threading.Thread(target=_wait, args=(descriptor,), name="reader", daemon=True).start()


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are told unasked
    if any(happened & (select.POLLERR | select.POLLHUP) for _, happened in poll.poll()):
        os.kill(os.getpid(), signal.SIGPIPE)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    raise BrokenPipeError
