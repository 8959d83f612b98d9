"""The options of `serve` that bound and protect it: added to a parser, and read into the settings they stand for."""

import argparse
from pathlib import Path

from serving.connections import Connections
from serving.option_types import DAY_S, number, positive, whole

DEFAULTS = Connections()
MOST_MESSAGE_MIB = 2047  # of protobuf's messages
USUAL_IMAGE_MIB = 16
USUAL_VIEWS = 16
MOST_AGE_S = 20 * DAY_S  # gRPC counts in milliseconds, in 31 bits


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Limits of connections, requests and pictures."""
    group = parser.add_argument_group("limits")
    add = group.add_argument
    add("--max-message-mib", type=whole(MOST_MESSAGE_MIB), default=32, metavar="MIB", help="largest request (32)")
    add(
        "--max-image-mib",
        type=whole(MOST_MESSAGE_MIB),
        metavar="MIB",
        help=f"largest encoded picture ({USUAL_IMAGE_MIB}, or what --max-message-mib allows)",
    )
    add(
        "--max-pixels",
        type=positive,
        default=50_000_000,
        metavar="N",
        help="most pixels of a picture, width times height; checked before it is decoded (50000000)",
    )
    add(
        "--max-in-flight-mib",
        type=positive,
        default=512,
        metavar="MIB",
        help="most encoded pictures held at once; what comes beyond is refused at once (512)",
    )
    add(
        "--max-connections",
        type=positive,
        default=DEFAULTS.max_connections,
        metavar="N",
        help="open connections; more are closed as they come (%(default)s)",
    )
    add(
        "--max-concurrent-streams",
        type=positive,
        default=DEFAULTS.max_concurrent_streams,
        metavar="N",
        help="calls at once on one connection; more wait in the caller (%(default)s)",
    )
    add(
        "--max-connection-age",
        type=number("seconds", 0, MOST_AGE_S),
        default=DEFAULTS.max_age_s,
        metavar="S",
        help="ask clients to connect again after so long, so that load spreads to new replicas; 0: never (%(default)g)",
    )
    add(
        "--max-connection-age-grace",
        type=number("seconds", 0, MOST_AGE_S),
        default=DEFAULTS.max_age_grace_s,
        metavar="S",
        help="how long calls in flight may then go on (%(default)g)",
    )
    add(
        "--keepalive",
        type=number("seconds", 1, DAY_S),
        default=DEFAULTS.keepalive_s,
        metavar="S",
        help="silence after which the server asks whether a client is still there (%(default)g)",
    )
    add(
        "--keepalive-timeout",
        type=number("seconds", 1, DAY_S),
        default=DEFAULTS.keepalive_timeout_s,
        metavar="S",
        help="how long it waits for the answer (%(default)g)",
    )


def add_security_options(parser: argparse.ArgumentParser) -> None:
    """TLS, callers, reflection."""
    add = parser.add_argument_group("security").add_argument
    add("--tls-cert", type=Path, metavar="FILE", help="the server's certificate and its chain, PEM (plaintext)")
    add("--tls-key", type=Path, metavar="FILE", help="its private key, PEM; both are read again when they change")
    add("--tls-client-ca", type=Path, metavar="FILE", help="every client must show a certificate of these authorities")
    add(
        "--auth-tokens",
        type=Path,
        metavar="FILE",
        help="who may call: lines of ROLE[,ROLE] NAME CREDENTIAL; read again when it changes (everybody)",
    )
    add(
        "--allow-plaintext-tokens",
        action="store_true",
        help="take tokens without TLS from other machines too: where a proxy or a service mesh encrypts",
    )
    add(
        "--token-key",
        type=Path,
        metavar="FILE",
        help="keys that sign feedback tokens, shared by all replicas; read again when changed (token.key in --state)",
    )
    add("--no-reflection", action="store_true", help="do not tell clients which services and messages there are")


def image_mib(arguments: argparse.Namespace) -> int:
    """The largest encoded picture, in MiB; one that no request could carry is refused with ValueError."""
    return _within(
        arguments, "max_image_mib", USUAL_IMAGE_MIB, "max_message_mib", "no request could carry such a picture"
    )


def most_views(arguments: argparse.Namespace) -> int:
    """Most views of a picture; more than there is ever room for are refused with ValueError."""
    return _within(
        arguments, "max_views", USUAL_VIEWS, "max_queue_views", "there would never be room for such a request"
    )


def _within(arguments: argparse.Namespace, name: str, usual: int, outer: str, consequence: str) -> int:
    """An option's value that another one bounds; where none was given, as much of the usual one as it allows."""
    given: int | None = getattr(arguments, name)
    most: int = getattr(arguments, outer)
    if given is None:
        return min(usual, most)
    if given > most:
        flag, bound = (f"--{each.replace('_', '-')}" for each in (name, outer))
        raise ValueError(f"{flag} {given} is more than {bound} {most}: {consequence}; raise {bound} too")
    return given


def to_connections(arguments: argparse.Namespace) -> Connections:
    """Raises ValueError if a limit is out of its range."""
    return Connections(
        max_message_bytes=arguments.max_message_mib * 2**20,
        max_connections=arguments.max_connections,
        max_concurrent_streams=arguments.max_concurrent_streams,
        keepalive_s=arguments.keepalive,
        keepalive_timeout_s=arguments.keepalive_timeout,
        max_age_s=arguments.max_connection_age,
        max_age_grace_s=arguments.max_connection_age_grace,
    )
