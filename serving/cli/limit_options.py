"""Options of `serve` that limit images, requests and connections."""

import argparse

from serving.cli.options import DAY_S, Numbers, add_numbers, number, positive, whole
from serving.image.decode import Limits
from serving.image.views import MAX_VIEWS
from serving.settings import ConnectionLimits

MAX_MESSAGE_MIB = 2047
"""Largest message of protobuf."""
USUAL_IMAGE_MIB = 16
USUAL_VIEWS = 16
MAX_AGE_S = 20 * DAY_S
"""gRPC counts milliseconds in 31 bits."""
_DEFAULTS = ConnectionLimits()
_age, _ping = number("seconds", 0, MAX_AGE_S), number("seconds", 1, DAY_S)
NUMBERS: Numbers = (
    ("--max-views-in-flight --max-queue-views", positive, 1024, "N", "most views in flight for each model"),
    ("--max-message-mib", whole(MAX_MESSAGE_MIB), 32, "MIB", "largest request"),
    ("--max-pixels", positive, 50_000_000, "N", "most pixels of an image, checked before it is decoded"),
    ("--max-in-flight-mib", positive, 512, "MIB", "most encoded images in memory; further ones are rejected"),
    ("--max-connections", positive, _DEFAULTS.max_connections, "N", "most connections; further ones are closed"),
    ("--max-concurrent-streams", positive, _DEFAULTS.max_concurrent_streams, "N", "most calls on one connection"),
    ("--max-connection-age", _age, _DEFAULTS.max_age_s, "S", "age at which clients must reconnect; 0 for never"),
    ("--max-connection-age-grace", _age, _DEFAULTS.max_age_grace_s, "S", "time for calls in flight at that age"),
    ("--keepalive", _ping, _DEFAULTS.keepalive_s, "S", "idle time after which a client is pinged"),
    ("--keepalive-timeout", _ping, _DEFAULTS.keepalive_timeout_s, "S", "time to wait for the reply to a ping"),
)


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
        "--views",
        type=_views,
        default=1,
        metavar="N",
        help="views of each image if a request names no number; `recommended`: the smallest number that improved the "
        "log loss on the validation images (1)",
    )
    add(
        "--max-image-mib",
        type=whole(MAX_MESSAGE_MIB),
        metavar="MIB",
        help=f"largest encoded image ({USUAL_IMAGE_MIB}, or --max-message-mib if that is less)",
    )
    add_numbers(add, NUMBERS)


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


def _views(text: str) -> int | None:
    """A number of views; None for `recommended`."""
    if text == "recommended":
        return None
    try:
        return whole(MAX_VIEWS)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or `recommended`") from error


def to_default_views(arguments: argparse.Namespace) -> int | None:
    """Views of an image if a request names no number; None for the number that its model's bundle recommends.

    Raises:
        ValueError: if it is more than a request may ask for.
    """
    views: int | None = arguments.views
    if views is not None and views > (most := to_max_views(arguments)):
        raise ValueError(f"--views {views} is more than {most}, the most that a request may ask for; raise --max-views")
    return views


def to_max_views(arguments: argparse.Namespace) -> int:
    """Most views of one image.

    Raises:
        ValueError: if one image may have more views than may be in flight.
    """
    views: int | None = arguments.max_views
    in_flight: int = arguments.max_views_in_flight
    if views is not None and views > in_flight:
        raise ValueError(
            f"--max-views {views} is more than --max-views-in-flight {in_flight}: such a request would always be "
            "rejected; raise --max-views-in-flight too"
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
