"""The options of a replica: those of `serve` without the ones that Ray Serve does not support."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from serving.cli.serve_options import add_serve_options

MORE_VERSIONS = 3
"""Most versions that a replica loads because clients name them."""
_TLS = "Ray's ingress uses plaintext; put a proxy or a service mesh in front of it"
_HTTP = "replicas answer gRPC only"
_LOGS = "Ray writes the logs of its replicas, in its own format and at its own level"
_CONNECTIONS = "Ray's ingress holds the connections"
UNSUPPORTED: Mapping[str, str] = {
    "tls_cert": _TLS,
    "tls_key": _TLS,
    "tls_client_ca": "Ray's ingress does not ask for certificates; use --clients",
    "http": _HTTP,
    "http_origin": _HTTP,
    "metrics": "replicas on one machine cannot share the port; use Ray's metrics",
    "access_log": "Ray logs each request of its replicas; see the folder of its session",
    "log_format": _LOGS,
    "log_level": _LOGS,
    "max_connections": _CONNECTIONS,
    "max_concurrent_streams": _CONNECTIONS,
    "max_connection_age": _CONNECTIONS,
    "max_connection_age_grace": _CONNECTIONS,
    "keepalive": _CONNECTIONS,
    "keepalive_timeout": _CONNECTIONS,
}
"""Options of `serve` that a replica cannot have, and why."""


def check_replica_options(arguments: argparse.Namespace) -> None:
    """Check that no unsupported option is set.

    Raises:
        ValueError: if one is; the message has its name and the reason.
    """
    defaults = _defaults()
    for name, reason in UNSUPPORTED.items():
        if getattr(arguments, name) != getattr(defaults, name):
            raise ValueError(f"--{name.replace('_', '-')} is not supported on Ray: {reason}")


def replica_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parsed arguments that are options of `serve`, for the replicas."""
    return {name: getattr(arguments, name) for name in vars(_defaults())}


def parse_configuration(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Parse the `args` of a configuration file.

    Returns:
        The options of each replica, and how many more versions it may load.

    Raises:
        ValueError: for an unknown key, a value of another type, or a flag that is unknown or unsupported.
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
    """Parse the options of one replica, as a configuration file lists them.

    Raises:
        ValueError: for an option that `serve` does not have or a replica does not support.
    """
    parser = _FlagParser(prog="flags", add_help=False, allow_abbrev=False)
    add_serve_options(parser)
    arguments = parser.parse_args(flags)
    check_replica_options(arguments)
    if arguments.no_reflection:
        raise ValueError("--no-reflection is not a flag of replicas; set enable_reflection: false in grpc_options")
    return vars(arguments)


def _defaults() -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False)
    add_serve_options(parser)
    return parser.parse_args([])


class _FlagParser(argparse.ArgumentParser):
    """Raises ValueError instead of ending the process, which is Ray's."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"flags: {message}")
