"""Parsed arguments of `ray` in; a Ray Serve application that runs until a signal, and an exit code, out."""

import argparse
import importlib.util
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.client import Client, ClientError
from serving.ray.options import check_replica_options, replica_options
from serving.system.cpus import available_cpus
from serving.system.network import stays_on_this_machine

WRONG_USE = 2
OBJECT_STORE_BYTES = 80 * 2**20
"""About Ray's least: pictures do not go through the object store."""
INGRESS_TIMEOUT_S = 60.0

INGRESS: Mapping[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # a photo in one piece, and without a wait for leave after each 64 KiB
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(64 * 2**10),
    "RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE": str(2**20),
    "RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE": str(2**20),
}
"""Replicas speak gRPC themselves, and HAProxy, which Ray runs on each machine, brings them the calls. Ray reads this
from the environment of its own processes, so a cluster that runs already must have been started with it."""


def serve_on_ray(arguments: argparse.Namespace) -> int:
    """Serve until a signal; returns 0, or 1 if it cannot start, or 2 if the options do not go together."""
    if importlib.util.find_spec("ray") is None:
        print("pawserve: Ray is not installed; pip install 'pawserve[ray]'", file=sys.stderr)
        return 1
    try:
        check_replica_options(arguments)
        _check_cluster(arguments)
    except ValueError as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return WRONG_USE
    try:
        if arguments.address is None:  # before a cluster is started for them
            find_bundles(arguments.models, tuple(arguments.model), arguments.keep_versions)
        return _run(arguments)
    except (BundleError, ConnectionError, RuntimeError, TimeoutError) as error:
        print(f"pawserve: {error}", file=sys.stderr)
        return 1


def _check_cluster(arguments: argparse.Namespace) -> None:
    """Raises ValueError if what is asked for cannot be."""
    if arguments.listen.rpartition(":")[2] in ("", "0"):
        raise ValueError(f"--listen {arguments.listen}: Ray's ingress needs the number of a port")
    needed = arguments.replicas[1] * arguments.cpus
    if arguments.address is None and needed > available_cpus():
        raise ValueError(
            f"{arguments.replicas[1]} replicas of {arguments.cpus:g} CPUs need {needed:g}, and this machine has "
            f"{available_cpus()}: ask for fewer, give each less (--cpus 0.5), or join a cluster (--address)"
        )


def _run(arguments: argparse.Namespace) -> int:
    wanted = {
        **INGRESS,
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(arguments.max_message_mib * 2**20),
        "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its makers of each start
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    import ray  # reads them when it is imported
    from ray import serve

    from serving.ray.app import NAME, application
    from serving.ray.ingress import SERVICER_FUNCTIONS

    host, _, port = arguments.listen.rpartition(":")
    local = stays_on_this_machine(arguments.listen)
    new = {
        "num_cpus": available_cpus(),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        **({"_node_ip_address": "127.0.0.1"} if local else {}),
    }
    options = replica_options(arguments)
    if arguments.address is None:
        _make_absolute(options)
    ray.init(
        arguments.address or "local",
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({} if arguments.address else new),
    )
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": host, "port": _free_port(host)},
            grpc_options={
                "port": int(port),
                "grpc_servicer_functions": list(SERVICER_FUNCTIONS),
                # Ray answers it without a look at tokens
                "enable_reflection": not arguments.no_reflection and arguments.auth_tokens is None,
            },
        )
        app = application(options, arguments.more_versions, **_deployment(arguments))
        try:
            serve.run(app, name=NAME, route_prefix="/")
        except RuntimeError as error:  # which says only that the deployment failed
            raise RuntimeError(_reason(serve.status()) or str(error)) from error
        address = f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"
        print(f"pawserve ready on {address}: {_wait_for(address, stopping)}", flush=True)
        stopping.wait()
        serve.delete(NAME) if arguments.address else serve.shutdown()
    finally:
        ray.shutdown()
    return 0


def _reason(status: Any) -> str:
    """Why the replicas did not start: the last line of the traceback that Ray keeps of them; "" if it keeps none."""
    kept = [each.message for app in status.applications.values() for each in app.deployments.values() if each.message]
    last = kept[0].rstrip().rpartition("\n")[2] if kept else ""
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
    """What is served, once the ingress brings calls to a replica.

    Raises:
        TimeoutError: if it does not.
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
    """Replicas have a working directory of their own."""
    options.update({name: value.resolve() for name, value in options.items() if isinstance(value, Path)})
    if options["statistics"] and "://" not in options["statistics"]:
        options["statistics"] = str(Path(options["statistics"]).resolve())


def _free_port(host: str) -> int:
    """For Ray's HTTP ingress, which cannot be turned off alone, and leads nowhere."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])
