"""Options of `serve` that limit images, requests and connections."""

import argparse

from serving.cli.options import DAY_S, number, positive, whole
from serving.image.decode import Limits
from serving.image.views import MAX_VIEWS
from serving.settings import ConnectionLimits

MAX_MESSAGE_MIB = 2047
"""Largest message of protobuf."""
USUAL_IMAGE_MIB = 16
USUAL_VIEWS = 16
MAX_AGE_S = 20 * DAY_S
"""gRPC counts milliseconds in 31 bits."""
DEFAULTS = ConnectionLimits()


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Limits of images, requests and connections."""
    add = parser.add_argument_group("limits").add_argument
    add(
        "--max-views",
        type=whole(MAX_VIEWS),
        metavar="N",
        help=f"most views of each image that a request may ask for, up to {MAX_VIEWS} ({USUAL_VIEWS}, or "
        "--max-views-in-flight if that is less)",
    )
    add(
        "--max-views-in-flight",
        "--max-queue-views",
        dest="max_queue_views",
        type=positive,
        default=1024,
        metavar="N",
        help="most views in flight for each model; further requests are refused (%(default)s)",
    )
    add("--max-message-mib", type=whole(MAX_MESSAGE_MIB), default=32, metavar="MIB", help="largest request (32)")
    add(
        "--max-image-mib",
        type=whole(MAX_MESSAGE_MIB),
        metavar="MIB",
        help=f"largest encoded image ({USUAL_IMAGE_MIB}, or --max-message-mib if that is less)",
    )
    add(
        "--max-pixels",
        type=positive,
        default=50_000_000,
        metavar="N",
        help="most pixels of an image, width x height, checked before it is decoded (%(default)s)",
    )
    add(
        "--max-in-flight-mib",
        type=positive,
        default=512,
        metavar="MIB",
        help="most encoded images in memory; further requests are refused (%(default)s)",
    )
    add(
        "--max-connections",
        type=positive,
        default=DEFAULTS.max_connections,
        metavar="N",
        help="most open connections; further ones are closed when they are accepted (%(default)s)",
    )
    add(
        "--max-concurrent-streams",
        type=positive,
        default=DEFAULTS.max_concurrent_streams,
        metavar="N",
        help="most calls in flight on one connection; further ones wait in the client (%(default)s)",
    )
    add(
        "--max-connection-age",
        type=number("seconds", 0, MAX_AGE_S),
        default=DEFAULTS.max_age_s,
        metavar="S",
        help="age at which a client is asked to reconnect, so that load spreads to new replicas; 0: never "
        "(%(default)g)",
    )
    add(
        "--max-connection-age-grace",
        type=number("seconds", 0, MAX_AGE_S),
        default=DEFAULTS.max_age_grace_s,
        metavar="S",
        help="seconds that calls in flight on such a connection still get (%(default)g)",
    )
    add(
        "--keepalive",
        type=number("seconds", 1, DAY_S),
        default=DEFAULTS.keepalive_s,
        metavar="S",
        help="idle seconds after which the server pings a client (%(default)g)",
    )
    add(
        "--keepalive-timeout",
        type=number("seconds", 1, DAY_S),
        default=DEFAULTS.keepalive_timeout_s,
        metavar="S",
        help="seconds to wait for the reply to a ping (%(default)g)",
    )


def to_image_limits(arguments: argparse.Namespace) -> Limits:
    """The limits of one image.

    Raises:
        ValueError: if an image may be larger than a request.
    """
    image, message = arguments.max_image_mib, arguments.max_message_mib
    if image is not None and image > message:
        raise ValueError(
            f"--max-image-mib {image} is more than --max-message-mib {message}: no request could hold such an image; "
            "raise --max-message-mib too"
        )
    return Limits(max_bytes=(image or min(USUAL_IMAGE_MIB, message)) * 2**20, max_pixels=arguments.max_pixels)


def to_max_views(arguments: argparse.Namespace) -> int:
    """Most views of one image.

    Raises:
        ValueError: if one image may have more views than may be in flight.
    """
    views: int | None = arguments.max_views
    in_flight: int = arguments.max_queue_views
    if views is not None and views > in_flight:
        raise ValueError(
            f"--max-views {views} is more than --max-views-in-flight {in_flight}: such a request would always be "
            "refused; raise --max-views-in-flight too"
        )
    return views or min(USUAL_VIEWS, in_flight)


def to_connection_limits(arguments: argparse.Namespace) -> ConnectionLimits:
    """The limits of connections."""
    return ConnectionLimits(
        max_message_bytes=arguments.max_message_mib * 2**20,
        max_connections=arguments.max_connections,
        max_concurrent_streams=arguments.max_concurrent_streams,
        keepalive_s=arguments.keepalive,
        keepalive_timeout_s=arguments.keepalive_timeout,
        max_age_s=arguments.max_connection_age,
        max_age_grace_s=arguments.max_connection_age_grace,
    )
