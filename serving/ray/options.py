"""The options of `ray`: added to a parser, and those of `serve` that a replica of Ray cannot keep, refused."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from serving.cli.common import number, positive, seconds
from serving.cli.serve_options import add_serve_options

MORE_VERSIONS = 3
"""Versions that a replica loads because callers name them."""
NOT_BY_REPLICAS: Mapping[str, str] = {
    "tls_cert": "Ray's ingress speaks plaintext: put a proxy or a service mesh in front of it",
    "tls_key": "Ray's ingress speaks plaintext: put a proxy or a service mesh in front of it",
    "tls_client_ca": "Ray's ingress asks for no certificates: use --auth-tokens",
    "metrics": "replicas of one machine would contend for the port: Ray has metrics of its own",
    "access_log": "Ray keeps the logs of its replicas, each request's line too: see its session's folder",
    "log_format": "Ray keeps the logs of its replicas, and in its own format",
    "log_level": "Ray keeps the logs of its replicas, and at its own level",
    "max_connections": "the connections are those of Ray's ingress",
    "max_concurrent_streams": "the connections are those of Ray's ingress",
    "max_connection_age": "the connections are those of Ray's ingress",
    "max_connection_age_grace": "the connections are those of Ray's ingress",
    "keepalive": "the connections are those of Ray's ingress",
    "keepalive_timeout": "the connections are those of Ray's ingress",
}
"""Options of `serve`, and why a replica cannot do what they ask for."""


def add_ray(parser: argparse.ArgumentParser) -> None:
    """The command `ray`."""
    parser.description = (
        "Serve models as replicas of a Ray cluster until SIGTERM or Ctrl-C: of one that is started on this machine, or "
        "of one that runs. Each replica is a server as `serve` starts one, with the same API, behind Ray's gRPC "
        "ingress; as many as the load needs. Needs pip install 'pawserve[ray]'. docs/ray.md has more."
    )
    add = parser.add_argument_group("replicas").add_argument
    add("--replicas", type=_replicas, default=(1, 1), metavar="N|MIN-MAX", help="how many (1)")
    add(
        "--target-requests",
        type=positive,
        default=16,
        metavar="N",
        help="replicas are added while each has more requests than these on average, and taken away below (16)",
    )
    add("--cpus", type=number("CPUs", 0, 1024), default=1.0, metavar="N", help="CPUs of each replica (1)")
    add(
        "--gpus",
        type=number("GPUs", 0, 1024),
        default=0.0,
        metavar="N",
        help="GPUs of each replica; 0.5 for two on one (0)",
    )
    add(
        "--more-versions",
        type=positive,
        default=MORE_VERSIONS,
        metavar="N",
        help="versions beside those of --model and --keep-versions that a replica loads when callers name them; the "
        "one not asked for longest makes room (3)",
    )
    add("--upscale-delay", type=seconds, default=10.0, metavar="S", help="load must last so long to add replicas (10)")
    add("--downscale-delay", type=seconds, default=300.0, metavar="S", help="and calm so long to remove them (300)")
    add("--address", metavar="HOST:PORT", help="of a cluster that runs; 'auto' for the one of this machine (a new one)")
    add_serve_options(parser)
    # here, so that the other commands need not wait for Ray
    parser.set_defaults(run=_run)


def check_replica_options(arguments: argparse.Namespace) -> None:
    """Refuse what a replica cannot do.

    Raises:
        ValueError: naming the option, and why.
    """
    usual = _usual()
    for name, reason in NOT_BY_REPLICAS.items():
        if getattr(arguments, name) != getattr(usual, name):
            raise ValueError(f"--{name.replace('_', '-')} cannot be had with Ray: {reason}")


def replica_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of parsed arguments that are options of `serve`, for the replicas."""
    return {name: getattr(arguments, name) for name in vars(_usual())}


def parse_configuration(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The options of each replica, and how many more versions it loads, from the `args` of a configuration file.

    Raises:
        ValueError: if there are others, or one is of another kind, or a flag is none, or not for replicas.
    """
    if unknown := arguments.keys() - {"flags", "more_versions"}:
        raise ValueError(f"args has {', '.join(sorted(unknown))}; flags and more_versions are allowed")
    flags, more_versions = arguments.get("flags", []), arguments.get("more_versions", MORE_VERSIONS)
    if not isinstance(flags, list):
        raise ValueError(f"flags is {flags!r}; it must be a list of options of serve, such as [--models, /models]")
    if not isinstance(more_versions, int) or isinstance(more_versions, bool) or more_versions < 1:
        raise ValueError(f"more_versions is {more_versions!r}; it must be a whole number from 1")
    return parse_flags([str(flag) for flag in flags]), more_versions


def parse_flags(flags: list[str]) -> dict[str, Any]:
    """The options of one replica, as a configuration file lists them.

    Raises:
        ValueError: if they are no options of `serve`, or not for replicas.
    """
    parser = _FlagParser(prog="flags", add_help=False, allow_abbrev=False)
    add_serve_options(parser)
    arguments = parser.parse_args(flags)
    check_replica_options(arguments)
    if arguments.no_reflection:
        raise ValueError("--no-reflection is enable_reflection: false of grpc_options in a configuration file")
    return vars(arguments)


def _usual() -> argparse.Namespace:
    """The options of `serve` where none is given."""
    parser = argparse.ArgumentParser(add_help=False)
    add_serve_options(parser)
    return parser.parse_args([])


class _FlagParser(argparse.ArgumentParser):
    """Raises where another would end the process, which is Ray's here."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"flags: {message}")


def _run(arguments: argparse.Namespace) -> int:
    from serving.ray.command import serve_on_ray

    return serve_on_ray(arguments)


def _replicas(text: str) -> tuple[int, int]:
    least, dash, most = text.partition("-")
    numbers = [int(part) for part in ((least, most) if dash else (least, least)) if part.isascii() and part.isdigit()]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of replicas; write N, or MIN-MAX from 1")
    return numbers[0], numbers[1]
