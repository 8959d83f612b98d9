"""`ray`: serve models as replicas of a Ray cluster."""

import argparse
import importlib.util
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.cli.errors import DONE, CommandError, UsageError
from serving.cli.options import Numbers, add_numbers, number, positive, seconds
from serving.cli.serve_options import add_serve_options
from serving.client import Client, ClientError
from serving.ray.ingress import SERVICER_FUNCTIONS
from serving.ray.options import MORE_VERSIONS, check_replica_options, replica_options
from serving.system.cpus import available_cpus
from serving.system.network import UNIX, format_address, is_local, parse_address, resolve

OBJECT_STORE_BYTES = 80 * 2**20
"""About the least that Ray accepts; images do not pass through the object store."""
INGRESS_TIMEOUT_S = 60.0

INGRESS: Mapping[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # a whole image in one buffer, sent without waiting for window updates after each 64 KiB
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(64 * 2**10),
    "RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE": str(2**20),
    "RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE": str(2**20),
}
"""With these, replicas answer gRPC themselves, and HAProxy, which Ray runs on each machine, forwards the calls. Ray
reads them from the environment of its own processes, so a running cluster must have been started with them."""


NUMBERS: Numbers = (
    ("--target-requests", positive, 16, "N", "requests in flight on each replica at which replicas are added"),
    ("--cpus", number("CPUs", 0, 1024), 1.0, "N", "CPUs of each replica"),
    ("--gpus", number("GPUs", 0, 1024), 0.0, "N", "GPUs of each replica; 0.5 for two replicas on one GPU"),
    ("--more-versions", positive, MORE_VERSIONS, "N", "versions that a replica loads because clients name them"),
    ("--upscale-delay", seconds, 10.0, "S", "time of high load after which replicas are added"),
    ("--downscale-delay", seconds, 300.0, "S", "time of low load after which replicas are removed"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `ray`: those of the replicas, and all of `serve`."""
    parser.description = (
        "Serve models as replicas of a Ray cluster until SIGTERM or Ctrl-C. The command starts a cluster on this "
        "machine, or joins a running one. Each replica is a server as `serve` starts it, with the same API, behind "
        "Ray's gRPC ingress; their number follows the load. Needs pip install 'pawserve[ray]'. See docs/ray.md."
    )
    add = parser.add_argument_group("replicas").add_argument
    add("--replicas", type=_replicas, default=(1, 1), metavar="N|MIN-MAX", help="number of replicas (1)")
    add_numbers(add, NUMBERS)
    add(
        "--address",
        metavar="HOST:PORT",
        help="join the running cluster at this address; 'auto' for the one of this machine (start a new cluster)",
    )
    add_serve_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    if importlib.util.find_spec("ray") is None:
        raise CommandError("Ray is not installed; run pip install 'pawserve[ray]'")
    try:
        check_replica_options(arguments)
        _check_cluster(arguments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        if arguments.address is None:  # before a cluster is started for them
            find_bundles(arguments.models, arguments.model, arguments.keep_versions, arguments.shadow)
        _run(arguments)
    except (BundleError, ConnectionError, RuntimeError, TimeoutError) as error:
        raise CommandError(str(error)) from error
    return DONE


def _check_cluster(arguments: argparse.Namespace) -> None:
    """Raise ValueError if the cluster cannot be started as requested."""
    if arguments.listen.startswith(UNIX):
        raise ValueError(f"--listen is {arguments.listen}; Ray's ingress has no Unix sockets: give HOST:PORT")
    host, port = parse_address(arguments.listen)
    if not port:
        raise ValueError(f"--listen is {arguments.listen}; Ray's ingress needs a port other than 0")
    try:
        addresses = resolve(host)
    except OSError as error:
        raise ValueError(f"--listen is {arguments.listen}; {host} cannot be resolved: give an IP address") from error
    if len(addresses) > 1:
        raise ValueError(
            f"--listen is {arguments.listen}; {host} has the addresses {' and '.join(addresses)}, and Ray's ingress "
            "listens on one address: give that one"
        )
    needed = arguments.replicas[1] * arguments.cpus
    if arguments.address is None and needed > available_cpus():
        raise ValueError(
            f"{arguments.replicas[1]} replicas of {arguments.cpus:g} CPUs need {needed:g}, and this machine has "
            f"{available_cpus()}: use fewer replicas, give each less (--cpus 0.5), or join a cluster (--address)"
        )


def _run(arguments: argparse.Namespace) -> None:
    _set_environment(arguments)
    import ray  # reads the environment when it is imported
    from ray import serve

    from serving.ray.app import NAME, application

    options = replica_options(arguments)
    if arguments.address is None:
        _make_absolute(options)
    cluster = {} if arguments.address else _new_cluster(arguments)
    with _explained():
        ray.init(arguments.address or "local", log_to_driver=False, logging_level=logging.WARNING, **cluster)
    stopping = Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopping.set())
    try:
        host, port = parse_address(arguments.listen)
        with _explained():
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": host, "port": _free_port(host)},
                grpc_options={
                    "port": port,
                    "grpc_servicer_functions": list(SERVICER_FUNCTIONS),
                    # Ray answers reflection without checking tokens
                    "enable_reflection": not arguments.no_reflection and arguments.clients is None,
                },
            )
        app = application(options, arguments.more_versions, **_deployment(arguments))
        try:
            serve.run(app, name=NAME, route_prefix="/")
        except RuntimeError as error:  # it does not say why
            raise RuntimeError(_reason(serve.status()) or str(error)) from error
        address = format_address("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
        print(f"pawserve ready on {address}: {_wait_for(address, stopping)}", flush=True)
        stopping.wait()
        serve.delete(NAME) if arguments.address else serve.shutdown()
    finally:
        ray.shutdown()


@contextmanager
def _explained() -> Iterator[None]:
    """Raise RuntimeError for whatever Ray raises if a part of it does not start, as within 30 s on a busy machine."""
    try:
        yield
    except Exception as error:
        reason, _, _ = str(error).partition("\n")
        raise RuntimeError(f"Ray does not start: {reason or type(error).__name__}") from error


def _set_environment(arguments: argparse.Namespace) -> None:
    variables = {
        **INGRESS,
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(arguments.max_message_mib * 2**20),
        "RAY_USAGE_STATS_ENABLED": "0",  # otherwise Ray reports each start to its makers
    }
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _new_cluster(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of `ray.init` that start a cluster on this machine."""
    return {
        "num_cpus": available_cpus(),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        **({"_node_ip_address": "127.0.0.1"} if is_local(arguments.listen) else {}),
    }


def _reason(status: Any) -> str:
    """Why the replicas did not start: the last line of the traceback in their status; "" if there is none."""
    messages = [
        each.message for app in status.applications.values() for each in app.deployments.values() if each.message
    ]
    last = messages[0].rstrip().rpartition("\n")[2] if messages else ""
    return last.partition("StartupError: ")[2] or last


def _deployment(arguments: argparse.Namespace) -> dict[str, Any]:
    least, most = arguments.replicas
    scaling: dict[str, Any] = {"num_replicas": least}
    if least < most:
        scaling = {
            "autoscaling_config": {
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": arguments.target_requests,
                "upscale_delay_s": arguments.upscale_delay,
                "downscale_delay_s": arguments.downscale_delay,
            }
        }
    return {
        **scaling,
        "ray_actor_options": {"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        "graceful_shutdown_timeout_s": arguments.grace,
    }


def _wait_for(address: str, stopping: Event) -> str:
    """Wait until the ingress forwards calls to a replica; returns what the ready line says.

    Raises:
        TimeoutError: if it does not within INGRESS_TIMEOUT_S.
    """
    deadline = time.monotonic() + INGRESS_TIMEOUT_S
    with Client(address, timeout_s=5) as client:
        while not stopping.wait(0.1):
            try:
                if client.health() == "SERVING":
                    return "replicas of Ray Serve"
            except ClientError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Ray's ingress on {address} does not answer: {error.message}") from error
    return "stopping"


def _make_absolute(options: dict[str, Any]) -> None:
    """Make paths absolute, since replicas have their own working directory."""
    options.update({name: value.resolve() for name, value in options.items() if isinstance(value, Path)})
    if options["statistics"] and "://" not in options["statistics"]:
        options["statistics"] = str(Path(options["statistics"]).resolve())


def _free_port(host: str) -> int:
    """A port for Ray's HTTP ingress, which cannot be turned off and has no routes."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])


def _replicas(text: str) -> tuple[int, int]:
    least, dash, most = text.partition("-")
    numbers = [int(part) for part in ((least, most) if dash else (least, least)) if part.isascii() and part.isdigit()]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of replicas; write N, or MIN-MAX with MIN from 1")
    return numbers[0], numbers[1]
