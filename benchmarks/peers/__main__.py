"""The server beside Triton, LitServe and BentoML: the same INT8 graph, the same decoding, the same machine.

    python -m benchmarks.peers.install --peers-dir DIR
    python -m benchmarks.peers --bundle MODELS/NAME/VERSION --photos DIR --peers-dir DIR

Each peer has the best of several settings. Throughput: pawserve and the peer run at the same time and are measured in
turns with 1, 16 and 64 clients; ratios are taken within a round. In each round, processes without any server do the
same work, which is the limit for any server. Latency: all of them, in turns, at one rate: half of the slowest one's
capacity. Views: V views in one request to pawserve, and V requests at once to Triton for the same image.

`--parts` and `--peers` measure less at a time; the day's results keep what was measured before. `--protocol http` calls
pawserve and Triton over HTTP, as LitServe and BentoML always are; its results have a page of their own, without views.
"""

import argparse
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import Any

import grpc

from benchmarks.common import absolute_path, circumstances, make_parser, results_of_today, write_results
from benchmarks.peers.limit import measure_limit
from benchmarks.peers.report import to_markdown
from benchmarks.peers.servers import HTTP_TOO, SETTINGS, RunningPeer, running_peer
from benchmarks.rounds import measure_in_turns
from benchmarks.serving.load import run_load
from serving.bundle.manifest import open_bundle

PEERS = [name for name in SETTINGS if name != "pawserve"]
COMPARED_IMAGES = 8
VIEWS = (1, 3, 5)
VIEWS_CLIENTS = 16
"""Concurrent clients, each with one image at a time, while views are measured."""
TOLERANCE = 1e-3
READY_TIMEOUT_S = 30


def main() -> None:
    """Parse the arguments, measure the chosen parts, and write the result page after each."""
    parser = make_parser(__doc__, "bundle", "photos", clients=[1, 16, 64], rounds=5, seconds=2.0)
    parser.add_argument(
        "--peers-dir", type=absolute_path, required=True, help="where benchmarks.peers.install put them"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--protocol", choices=("grpc", "http"), default="grpc", help="of pawserve and Triton (grpc)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="(all that the protocol has)")
    arguments = parser.parse_args()
    possible = [part for part in PARTS if part != VIEWS_PART or arguments.protocol == "grpc"]
    arguments.parts = arguments.parts or possible
    if not set(arguments.parts) <= set(possible):
        parser.error(f"--parts {VIEWS_PART} needs --protocol grpc, whose connections take several requests at a time")
    now = circumstances("peers" if arguments.protocol == "grpc" else "peers-http") | {
        "rounds": arguments.rounds,
        "settings": SETTINGS,
        "versions": _versions(arguments.peers_dir),
        "model": f"{open_bundle(arguments.bundle).manifest.arch} in int8",
    }
    results = results_of_today(now)
    for part in arguments.parts:
        PARTS[part](arguments, results)
        # each part may have been measured by a command of its own
        results.setdefault("commands", {})[part] = now["command"]
        write_results(results, to_markdown(results))


def measure_throughput(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure each chosen peer in turns with pawserve."""
    for peer in arguments.peers:
        with _running(arguments, ["pawserve", peer]) as servers:
            rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
            limits = []
            for number in range(arguments.rounds):
                limits.append(measure_limit(arguments.bundle, arguments.photos, arguments.seconds))
                for clients in arguments.clients:
                    for name in servers if number % 2 == 0 else reversed(servers):  # which is first alternates
                        measured = _load(arguments, servers[name], "clients", clients)
                        rounds.setdefault(str(clients), {}).setdefault(name, []).append(measured)
        results.setdefault("throughput", {})[peer] = rounds
        results.setdefault("limit", {})[peer] = limits


def measure_latency(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure all servers in turns at half of the slowest one's capacity."""
    capacities = {
        peer: max(median_low(one["images_per_s"] for one in row[peer]) for row in by_clients.values())
        for peer, by_clients in results["throughput"].items()
    }
    rate = min(capacities.values()) / 2
    with _running(arguments, ["pawserve", *capacities]) as servers:
        ways = {name: partial(_load, arguments, server, "rate") for name, server in servers.items()}
        (rounds,) = measure_in_turns(arguments.rounds, [rate], ways).values()
    results["latency"] = {"images_per_s": rate, "rounds": rounds}


def measure_views(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure V views in one request to pawserve in turns with V concurrent requests to Triton for the same image."""
    with _running(arguments, ["pawserve", "triton"]) as servers:
        ways = {
            "pawserve": partial(_load, arguments, servers["pawserve"], "views", clients=VIEWS_CLIENTS),
            "triton": partial(_load, arguments, servers["triton"], "at_once", clients=VIEWS_CLIENTS),
        }
        results["views"] = measure_in_turns(arguments.rounds, VIEWS, ways)


VIEWS_PART = "views"
PARTS = {"throughput": measure_throughput, "latency": measure_latency, VIEWS_PART: measure_views}


@contextmanager
def _running(arguments: argparse.Namespace, names: Iterable[str]) -> Iterator[dict[str, RunningPeer]]:
    """Start servers, wait until each responds, and check that all compute the same.

    Raises:
        RuntimeError: if a probability differs from pawserve's by more than `TOLERANCE`.
    """
    with ExitStack() as stack:
        servers = {}
        for name in names:
            peer = f"{name}-http" if name in HTTP_TOO and arguments.protocol == "http" else name
            servers[name] = stack.enter_context(running_peer(peer, arguments.bundle, arguments.peers_dir))
        predictions = {name: _first_predictions(arguments, server) for name, server in servers.items()}
        for name, probabilities in predictions.items():
            for theirs, ours in zip(probabilities, predictions["pawserve"], strict=True):
                if max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) > TOLERANCE:
                    raise RuntimeError(f"{name} gives {theirs} and pawserve {ours}: they do not compute the same")
        yield servers


def _load(arguments: argparse.Namespace, server: RunningPeer, kind: str, value: float, **load: float) -> Any:
    """One measurement, by a process of its own; `kind` is the option of the load that has the value."""
    more = {"setting": SETTINGS[server.peer.removesuffix("-http")], "seconds": arguments.seconds, kind: value, **load}
    return run_load(server.peer, server.address, arguments.photos, **more)


def _first_predictions(arguments: argparse.Namespace, server: RunningPeer) -> list[list[float]]:
    until = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            predictions: list[list[float]] = _load(arguments, server, "answers", COMPARED_IMAGES)
            return predictions
        except (grpc.RpcError, OSError, RuntimeError):
            if time.monotonic() > until:
                raise


def _versions(peers_dir: Path) -> dict[str, str]:
    """Versions of each installed peer and of ONNX Runtime in its environment."""
    versions = {}
    for peer, package in (("triton", "nvidia-pytriton"), ("litserve", "litserve"), ("bentoml", "bentoml")):
        python = peers_dir / peer / "bin/python"
        if python.exists():
            code = f"from importlib.metadata import version as v; print(v('{package}'), v('onnxruntime'))"
            printed = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
            versions[package], versions[f"onnxruntime beside {package}"] = printed.split()
    return versions


if __name__ == "__main__":
    main()
