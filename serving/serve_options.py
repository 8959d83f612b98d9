"""The options of `serve`: added to a parser, and read into the settings they stand for. `ray` takes them too."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serving.client import DEFAULT_ADDRESS
from serving.limit_options import (
    USUAL_VIEWS,
    add_limit_options,
    add_security_options,
    image_mib,
    most_views,
    to_connections,
)
from serving.logs import LEVELS
from serving.option_types import DAY_S, address, number, positive, seconds, whole
from serving.statistics_arguments import add_database_options

MOST_THREADS = 1024
MOST_VIEWS = 64  # of serving.views, which loads the libraries that draw them

if TYPE_CHECKING:  # commands that parse and serve nothing need not wait for the inference libraries
    from serving.settings import Settings


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


def to_settings(arguments: argparse.Namespace) -> "Settings":
    """What the options say.

    Raises:
        ValueError: if a limit is out of its range, options do not go together, or the database's URL cannot be read.
    """
    from serving.decode import Limits
    from serving.observation import Observation
    from serving.plan import PlanOptions
    from serving.repository import ServingOptions
    from serving.security import to_security
    from serving.settings import Settings
    from serving.statistics_location import find_statistics

    if arguments.access_log and arguments.log_level not in ("debug", "info"):
        raise ValueError(f"--access-log writes at level info, of which --log-level {arguments.log_level} shows nothing")
    options = ServingOptions(
        plan=PlanOptions(
            instances=arguments.instances,
            threads=arguments.threads,
            max_batch_size=arguments.max_batch_size,
            latency_bound_ms=arguments.latency_bound_ms,
            seconds=arguments.plan_seconds,
        ),
        plans=arguments.state / "plans",
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
        observation=Observation(
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
