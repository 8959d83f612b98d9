"""Types of option values. Each raises argparse.ArgumentTypeError for a value that is not allowed."""

import argparse
from collections.abc import Callable, Iterable
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from serving.bundle.model_version import parse_resource, parse_short_name, resource_name
from serving.bundle.shadow_version import parse_shadow
from serving.system.network import parse_address, parse_listen_address
from serving.system.times import parse_time
from serving.web.settings import parse_origin

T = TypeVar("T")
Numbers = Iterable[tuple[str, Callable[[str], float], float, str, str]]
"""Options with a number: flags, type, default, metavar and help."""

DAY_S = 86_400.0
MAX_WHOLE = 2**31 - 1
"""Largest whole number of gRPC and most other libraries."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _with_message(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The type of an option from a function that raises ValueError, whose message argparse would not show."""

    def parse_option(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_option


def whole(most: int = MAX_WHOLE) -> Callable[[str], int]:
    """A whole number from 1 to `most`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most:,}")
        return int(text)

    return parse


positive = whole()
version_number = whole(10**18 - 1)
"""A model's version: at most 18 digits."""


def number(unit: str, least: float, most: float, *, above: float = -inf) -> Callable[[str], float]:
    """A number of a unit, at least `least`, more than `above`, at most `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not (least <= value <= most and value > above):
            lower = f"above {above:g}" if above >= least else f"from {least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} {lower} to {most:g}")
        return value

    return parse


seconds = number("seconds", 0, DAY_S)


def add_numbers(add: Callable[..., Any], rows: Numbers) -> None:
    """Add options with `add_argument` of a parser or group; the default is appended to the help."""
    for flags, type_, default, metavar, text in rows:
        shown = default if isinstance(default, int) else f"{default:g}"
        add(*flags.split(), type=type_, default=default, metavar=metavar, help=f"{text} ({shown})")


def duration(text: str) -> timedelta:
    """A duration such as 90s, 5m, 12h or 30d."""
    if not (text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in _UNITS_S):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 5m, 12h or 30d")
    return timedelta(seconds=int(text[:-1]) * _UNITS_S[text[-1]])


def path(text: str) -> Path:
    """A path, with `~` expanded where the shell has not done it, as in `--models=~/models`."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # of ~NAME
        raise argparse.ArgumentTypeError(f"{text!r} names a user who does not exist") from error


def png(text: str) -> Path:
    """A file to draw, in the one format that is drawn."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png")
    return path(text)


@_with_message
def address(text: str) -> str:
    """HOST:PORT. gRPC would reduce a larger port modulo 65,536."""
    parse_address(text)
    return text


@_with_message
def model_resource(text: str) -> str:
    """The resource name of NAME or NAME/VERSION. Resource names and "" stay as they are."""
    if text.startswith("models/"):
        parse_resource(text)
        return text
    return resource_name(*parse_short_name(text)) if text else ""


time = _with_message(parse_time)
"""A time, or a duration before now."""
listen_address = _with_message(parse_listen_address)
"""HOST:PORT or unix:PATH."""
origin = _with_message(parse_origin)
"""SCHEME://HOST[:PORT]."""
shadow_version = _with_message(parse_shadow)
"""NAME/VERSION or NAME/VERSION=SHARE."""
OFF = "off"


def http_address(text: str) -> str:
    """HOST:PORT, unix:PATH, or OFF."""
    return text if text == OFF else listen_address(text)


def http_url(text: str) -> str:
    """A URL with the scheme http or https."""
    url = urlsplit(text)
    try:
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of the port
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL; write http://HOST:PORT or https://HOST:PORT")
    return text
