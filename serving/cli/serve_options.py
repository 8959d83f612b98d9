"""The options of `serve`, which `ray` accepts too, and the settings that they stand for."""

import argparse
from pathlib import Path
from typing import get_args

from serving.bundle.shadow_version import check_shadows
from serving.cli.configuration import add_config_option
from serving.cli.limit_options import (
    add_limit_options,
    to_connection_limits,
    to_default_views,
    to_image_limits,
    to_max_views,
)
from serving.cli.options import (
    OFF,
    Numbers,
    add_numbers,
    address,
    http_address,
    http_url,
    listen_address,
    number,
    origin,
    path,
    positive,
    seconds,
    shadow_version,
    whole,
)
from serving.cli.security_options import add_security_options, to_security
from serving.cli.statistics_options import add_database_options, find_statistics
from serving.engine.selection import EngineName
from serving.models.layout import LayoutOptions
from serving.models.loader import ServingOptions
from serving.observability.settings import ObservabilitySettings
from serving.settings import Settings
from serving.system.logs import LEVELS
from serving.system.network import DEFAULT_ADDRESS
from serving.web.settings import DEFAULT_ADDRESS as HTTP_ADDRESS
from serving.web.settings import HttpSettings

MAX_THREADS = 1024
NUMBERS: Numbers = (
    ("--keep-versions", positive, 1, "N", "newest versions to serve of each model whose version is not named"),
    (
        "--poll-interval --poll-seconds",
        seconds,
        5.0,
        "S",
        "time between checks for new versions; 0 for on request only",
    ),
    ("--grace", seconds, 20.0, "S", "time that a shutdown waits for requests in flight"),
)


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """All options of `serve`."""
    add = parser.add_argument
    add_config_option(parser)
    add_model_options(parser)
    add(
        "--listen",
        type=listen_address,
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="address to listen on, or unix:PATH; port 0 takes a free port (%(default)s)",
    )
    add(
        "--http",
        type=http_address,
        metavar="HOST:PORT",
        help=f"address to listen on for HTTP, or unix:PATH, or `off` ({HTTP_ADDRESS}, unless it is taken)",
    )
    add(
        "--http-origin",
        action="append",
        default=[],
        type=origin,
        metavar="ORIGIN",
        help="pages of this origin may call the server, such as https://app.example.com; may be repeated (none)",
    )
    add(
        "--shadow",
        action="append",
        default=[],
        type=shadow_version,
        metavar="NAME/VERSION[=SHARE]",
        help="this version classifies the images of a share of the requests too (1), after the answers, to compare "
        "it; may be repeated, once for each name (none)",
    )
    add_database_options(parser)
    add(
        "--retention",
        type=number("days", 1, 36_500),
        metavar="DAYS",
        help="days after its prediction that a label is stored; totals keep it (for ever)",
    )
    add_numbers(add, NUMBERS)
    add_engine_options(parser)
    add(
        "--instances",
        type=whole(MAX_THREADS),
        metavar="N",
        help="batches computed at once (what `tune` measured, or one for each CPU, two on a GPU)",
    )
    add("--threads", type=whole(MAX_THREADS), metavar="N", help="threads of each instance (as measured, or 1)")
    add(
        "--max-batch-size",
        type=positive,
        metavar="N",
        help="most views in one engine call (as measured, or 4 for INT8 on a CPU, 2 otherwise, 32 on a GPU)",
    )
    add_limit_options(parser)
    add_security_options(parser)
    _add_observability_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The models, for `serve` and `tune`."""
    add = parser.add_argument
    add("--models", type=path, default=Path("models"), metavar="DIR", help="holds NAME/VERSION/model.json (models)")
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[/VERSION]",
        help="only this model, its newest version unless one is named; may be repeated (all models)",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The engine and the precision, for `serve` and `tune`."""
    add = parser.add_argument
    add("--engine", choices=get_args(EngineName), default="auto", help="inference engine (auto)")
    add(
        "--precision",
        choices=("int8", "fp32", "fp16"),
        help="which of a bundle's files to use (the one that is fastest on the engine)",
    )


def _add_observability_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("observability (docs/observability.md)").add_argument
    add(
        "--metrics",
        type=address,
        metavar="HOST:PORT",
        help="serve Prometheus metrics at this address, path /metrics; port 0 takes a free port (no)",
    )
    add("--log-format", choices=("text", "json"), default="text", help="text, or one JSON object on each line (text)")
    add("--log-level", choices=LEVELS, default="info", help="log messages of this level and above (info)")
    add("--access-log", action=argparse.BooleanOptionalAction, default=False, help="log each call (no)")
    add(
        "--otlp-endpoint",
        type=http_url,
        metavar="URL",
        help="send traces to this collector, by OTLP over gRPC, such as http://127.0.0.1:4317 (no)",
    )


def to_settings(arguments: argparse.Namespace) -> Settings:
    """The settings that the options stand for.

    Raises:
        ValueError: if options cannot be used together, or the database's URL cannot be read.
    """
    if arguments.access_log and arguments.log_level not in ("debug", "info"):
        raise ValueError(
            f"--access-log writes at level info, which --log-level {arguments.log_level} hides; leave one of them out"
        )
    check_shadows(arguments.shadow, arguments.model)
    options = ServingOptions(
        layout=LayoutOptions(
            instances=arguments.instances,
            threads=arguments.threads,
            max_batch_size=arguments.max_batch_size,
        ),
        layouts=arguments.state / "layouts",
        kernels=arguments.state / "kernels",
        engine=arguments.engine,
        precision=arguments.precision,
        max_rows=arguments.max_views_in_flight,
        limits=to_image_limits(arguments),
    )
    return Settings(
        models=arguments.models,
        wanted=tuple(arguments.model),
        keep_versions=arguments.keep_versions,
        shadows=tuple(arguments.shadow),
        poll_s=arguments.poll_interval,
        listen=arguments.listen,
        http=_to_http(arguments),
        state=arguments.state,
        statistics=find_statistics(arguments.statistics),
        retention_days=arguments.retention,
        token_key=arguments.token_key,
        options=options,
        max_views=to_max_views(arguments),
        default_views=to_default_views(arguments),
        connections=to_connection_limits(arguments),
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


def _to_http(arguments: argparse.Namespace) -> HttpSettings:
    listen: str | None = arguments.http
    if listen == OFF and arguments.http_origin:
        raise ValueError("--http-origin has no effect with --http off; leave one of them out")
    if listen is None:
        return HttpSettings(listen=HTTP_ADDRESS, required=False, origins=tuple(arguments.http_origin))
    return HttpSettings(listen=None if listen == OFF else listen, origins=tuple(arguments.http_origin))
