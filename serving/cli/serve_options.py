"""What the command line and the environment say in; the URL of the statistics' database out.

The options of `serve` that bound and protect it: added to a parser, and read into the settings they stand for.

The options of `serve`: added to a parser, and read into the settings they stand for. `ray` takes them too.
"""

import argparse
import os
from pathlib import Path
from urllib.parse import urlsplit

from serving.cli.common import DAY_S, address, number, positive, seconds, whole
from serving.cli.statistics_options import add_database_options
from serving.observability.settings import ObservabilitySettings
from serving.security.settings import Security, TlsFiles
from serving.settings import ConnectionLimits, Settings
from serving.system.logs import LEVELS
from serving.system.network import DEFAULT_ADDRESS

MAX_BYTES = 8192


def find_statistics(given: str | None) -> str:
    """The database's URL, or path; empty if none is named.

    Args:
        given: as --statistics names it. Without it, $PAWSERVE_STATISTICS; and without that, what the file holds that
            $PAWSERVE_STATISTICS_FILE names, as secrets are given to containers.

    Raises:
        ValueError: if that file cannot be read, or does not hold one URL.
    """
    if url := given or os.environ.get("PAWSERVE_STATISTICS"):
        return url
    path = os.environ.get("PAWSERVE_STATISTICS_FILE")
    if not path:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"PAWSERVE_STATISTICS_FILE names {path}, which cannot be read: {reason}") from error
    if len(text.split()) != 1:  # what it does hold is a secret, and is not said
        raise ValueError(f"PAWSERVE_STATISTICS_FILE names {path}, which must hold one URL and nothing else")
    return text


DEFAULTS = ConnectionLimits()
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


def to_connections(arguments: argparse.Namespace) -> ConnectionLimits:
    """Raises ValueError if a limit is out of its range."""
    return ConnectionLimits(
        max_message_bytes=arguments.max_message_mib * 2**20,
        max_connections=arguments.max_connections,
        max_concurrent_streams=arguments.max_concurrent_streams,
        keepalive_s=arguments.keepalive,
        keepalive_timeout_s=arguments.keepalive_timeout,
        max_age_s=arguments.max_connection_age,
        max_age_grace_s=arguments.max_connection_age_grace,
    )


def to_security(arguments: argparse.Namespace) -> Security:
    """TLS and authentication.

    Raises:
        ValueError: if options are given without those that they belong to.
    """
    certificate, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca
    if (certificate is None) != (key is None):
        raise ValueError("--tls-cert and --tls-key belong together: give both, or neither for plaintext")
    if client_ca is not None and certificate is None:
        raise ValueError("--tls-client-ca asks clients for certificates, which needs --tls-cert and --tls-key")
    if arguments.allow_plaintext_tokens and arguments.auth_tokens is None:
        raise ValueError("--allow-plaintext-tokens has no effect without --auth-tokens; give both, or neither")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=client_ca) if certificate is not None else None
    return Security(tls=tls, clients=arguments.auth_tokens, plaintext_tokens=arguments.allow_plaintext_tokens)


MOST_THREADS = 1024
MOST_VIEWS = 64  # of serving.image.views, which loads the libraries that draw them


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """All options of `serve`."""
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"), metavar="DIR", help="holds NAME/VERSION/model.json (models)")
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[/VERSION]",
        help="serve this model, its newest version unless one is named; may be repeated (the newest of every name)",
    )
    add(
        "--listen",
        type=address,
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="port 0 takes a free one (%(default)s)",
    )
    add(
        "--state",
        type=Path,
        default=Path("state"),
        metavar="DIR",
        help="keeps the statistics and the key that signs tokens; made if there is none (state)",
    )
    add_database_options(parser)
    add(
        "--keep-versions",
        type=positive,
        default=1,
        metavar="N",
        help="serve the N newest versions of each name, where none is named (1)",
    )
    add(
        "--poll-seconds",
        type=seconds,
        default=5.0,
        metavar="S",
        help="how often to look for new versions; 0 for only on SIGHUP and when a client asks (5)",
    )
    add("--engine", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto", help="what computes (auto)")
    add(
        "--precision",
        choices=("int8", "fp32", "fp16"),
        help="which of a bundle's files to serve (the fastest for the engine that it has)",
    )
    add("--instances", type=whole(MOST_THREADS), metavar="N", help="batches computed at once (measured)")
    add("--threads", type=whole(MOST_THREADS), metavar="N", help="threads of each instance (measured)")
    add("--max-batch-size", type=positive, metavar="N", help="most views in one engine call (measured)")
    add(
        "--latency-bound-ms",
        type=number("milliseconds", 0, DAY_S * 1000, above=0),
        default=50.0,
        metavar="MS",
        help="a full batch may take an engine so long, where its size is measured (50)",
    )
    add(
        "--plan-seconds",
        type=seconds,
        default=0.8,
        metavar="S",
        help="how long the first start of a model measures which plan is the fastest; 0 takes one unmeasured "
        "(%(default)g)",
    )
    add(
        "--max-views",
        type=whole(MOST_VIEWS),
        metavar="N",
        help=f"most views that a request may ask for, up to {MOST_VIEWS} ({USUAL_VIEWS}, or what --max-queue-views "
        "allows)",
    )
    add(
        "--max-queue-views",
        type=positive,
        default=1024,
        metavar="N",
        help="most views in flight for each model; what comes beyond is refused at once (1024)",
    )
    add("--grace", type=seconds, default=20.0, metavar="S", help="how long a stop waits for answers (20)")
    add_limit_options(parser)
    add_security_options(parser)
    _add_observation(parser.add_argument_group("what the server tells of itself (docs/observability.md)"))


def _add_observation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--metrics",
        type=address,
        metavar="HOST:PORT",
        help="answer Prometheus there, at /metrics; port 0 takes a free one (no)",
    )
    add("--log-format", choices=("text", "json"), default="text", help="for people, or one JSON object a line (text)")
    add("--log-level", choices=LEVELS, default="info", help="log this and what is graver (info)")
    add("--access-log", action=argparse.BooleanOptionalAction, default=False, help="log each call (no)")
    add(
        "--otlp-endpoint",
        type=_url,
        metavar="URL",
        help="send traces there, by OTLP over gRPC: http://127.0.0.1:4317 (no)",
    )


def to_settings(arguments: argparse.Namespace) -> Settings:
    """What the options say.

    Raises:
        ValueError: if a limit is out of its range, options do not go together, or the database's URL cannot be read.
    """
    from serving.image.decode import Limits
    from serving.models.layout import LayoutOptions
    from serving.models.repository import ServingOptions

    if arguments.access_log and arguments.log_level not in ("debug", "info"):
        raise ValueError(f"--access-log writes at level info, of which --log-level {arguments.log_level} shows nothing")
    options = ServingOptions(
        layout=LayoutOptions(
            instances=arguments.instances,
            threads=arguments.threads,
            max_batch_size=arguments.max_batch_size,
            latency_bound_ms=arguments.latency_bound_ms,
            seconds=arguments.plan_seconds,
        ),
        layouts=arguments.state / "layouts",
        engine=arguments.engine,
        precision=arguments.precision,
        max_rows=arguments.max_queue_views,
        limits=Limits(max_bytes=image_mib(arguments) * 2**20, max_pixels=arguments.max_pixels),
    )
    return Settings(
        models=arguments.models,
        wanted=tuple(arguments.model),
        keep_versions=arguments.keep_versions,
        poll_s=arguments.poll_seconds,
        listen=arguments.listen,
        state=arguments.state,
        statistics=find_statistics(arguments.statistics),
        retention_days=arguments.retention,
        token_key=arguments.token_key,
        options=options,
        max_views=most_views(arguments),
        connections=to_connections(arguments),
        security=to_security(arguments),
        reflection=not arguments.no_reflection,
        max_bytes_in_flight=arguments.max_in_flight_mib * 2**20,
        grace_s=arguments.grace,
        observability=ObservabilitySettings(
            metrics=arguments.metrics,
            access_log=arguments.access_log,
            otlp_endpoint=arguments.otlp_endpoint,
        ),
    )


def _url(text: str) -> str:
    url = urlsplit(text)
    try:
        whole_url = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of the port
        whole_url = False
    if not whole_url:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL of a collector; write http://HOST:PORT, or https://")
    return text
