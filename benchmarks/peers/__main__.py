"""The server beside Triton, LitServe and BentoML: the same INT8 graph, the same decoding, the same machine.

    python -m benchmarks.peers.install --peers-dir DIR
    python -m benchmarks.peers --bundle MODELS/NAME/VERSION --photos DIR --peers-dir DIR

Each peer is measured with several settings and keeps the best. Throughput: pawserve and the peer run at the same time
and are measured in turns with 1, 16 and 64 clients; ratios are taken within a round. In each round, processes without
any server do the same work, which is the limit for any server. Latency: all of them, in turns, at one rate: half of the
slowest one's capacity. `--parts` and `--peers` measure less at a time; the day's results keep what was measured before.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median_low
from typing import Any

from benchmarks.common import RESULTS, circumstances, run_json, write_results
from benchmarks.peers.report import to_markdown
from benchmarks.peers.servers import SETTINGS, RunningPeer, Setting, describe, running_peer
from serving.bundle.manifest import open_bundle

PEERS = [name for name in SETTINGS if name != "pawserve"]
COMPARED_IMAGES = 8
TOLERANCE = 1e-3
READY_TIMEOUT_S = 30


def main() -> None:
    """Parse the arguments, measure the chosen parts, and write the result page after each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="MODELS/NAME/VERSION, with an INT8 graph")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--peers-dir", type=Path, required=True, help="where benchmarks.peers.install put them")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", "--callers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many are reported (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes (2)")
    arguments = parser.parse_args()
    for name in ("bundle", "photos", "peers_dir"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    now = circumstances("peers", "") | {
        "rounds": arguments.rounds,
        "versions": _versions(arguments.peers_dir),
        "model": f"{open_bundle(arguments.bundle).manifest.arch} in int8",
    }
    path = RESULTS / f"{now['date'][:10]}-peers.json"
    results = (json.loads(path.read_text()) if path.exists() else {}) | now
    for part in arguments.parts:
        PARTS[part](arguments, results)
        # each part may have been measured by a command of its own
        results.setdefault("commands", {})[part] = (
            "python -m benchmarks.peers --bundle MODELS/NAME/VERSION --photos PHOTOS --peers-dir PEERS "
            f"--rounds {arguments.rounds} --parts {part} --seconds {arguments.seconds:g}"
        )
        write_results(results, to_markdown(results))


def measure_settings(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure every setting of the chosen peers once, with 16 and 64 clients; keep the best geometric mean."""
    for peer in arguments.peers:
        measured = []
        for setting in SETTINGS[peer]:
            with _start(arguments, peer, setting) as server:
                _first_predictions(arguments, server)
                rates = {
                    str(clients): _load(arguments, server, clients=clients)["images_per_s"] for clients in (16, 64)
                }
            measured.append({"setting": dict(setting), "images_per_s": rates})
            print(f"{peer}: {describe(setting)}: {rates['16']:.0f} and {rates['64']:.0f} images/s", file=sys.stderr)
        best = max(measured, key=lambda one: one["images_per_s"]["16"] * one["images_per_s"]["64"])
        results.setdefault("settings", {})[peer] = {"tried": measured, "best": best["setting"]}


def measure_throughput(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measure each chosen peer in turns with pawserve."""
    for peer in arguments.peers:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(_start_best(arguments, results, name)) for name in ("pawserve", peer)}
            _check_predictions(arguments, servers)
            rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
            limits = []
            for number in range(arguments.rounds):
                limit = ("--bundle", arguments.bundle, "--photos", arguments.photos, "--seconds", arguments.seconds)
                limits.append(run_json("benchmarks.peers.limit", *limit)["images_per_s"])
                for clients in arguments.clients:
                    for name in servers if number % 2 == 0 else reversed(servers):  # which is first alternates
                        measured = _load(arguments, servers[name], clients=clients)
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
    with ExitStack() as stack:
        names = ["pawserve", *capacities]
        servers = {name: stack.enter_context(_start_best(arguments, results, name)) for name in names}
        _check_predictions(arguments, servers)
        rounds: dict[str, list[dict[str, float]]] = {}
        for number in range(arguments.rounds):
            for name in servers if number % 2 == 0 else reversed(servers):
                rounds.setdefault(name, []).append(_load(arguments, servers[name], rate=rate))
    results["latency"] = {"images_per_s": rate, "rounds": rounds}


PARTS = {"settings": measure_settings, "throughput": measure_throughput, "latency": measure_latency}


def _start(arguments: argparse.Namespace, peer: str, setting: Setting) -> AbstractContextManager[RunningPeer]:
    return running_peer(peer, setting, arguments.bundle, arguments.peers_dir)


def _start_best(
    arguments: argparse.Namespace, results: dict[str, Any], peer: str
) -> AbstractContextManager[RunningPeer]:
    setting = results.get("settings", {}).get(peer, {}).get("best", SETTINGS[peer][0])
    return _start(arguments, peer, setting)


def _load(arguments: argparse.Namespace, server: RunningPeer, **load: float) -> Any:
    """One measurement, by a process of its own."""
    options: list[object] = ["--server", server.peer, "--address", server.address, "--photos", arguments.photos]
    options += ["--setting", json.dumps(dict(server.setting)), "--seconds", arguments.seconds]
    for name, value in load.items():
        options += [f"--{name}", value]
    return run_json("benchmarks.serving.load", *options)


def _check_predictions(arguments: argparse.Namespace, servers: dict[str, RunningPeer]) -> None:
    """Wait until every server responds, and check that all compute the same.

    Raises:
        RuntimeError: if a probability differs from pawserve's by more than `TOLERANCE`.
    """
    predictions = {name: _first_predictions(arguments, server) for name, server in servers.items()}
    for name, probabilities in predictions.items():
        for theirs, ours in zip(probabilities, predictions["pawserve"], strict=True):
            if max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) > TOLERANCE:
                raise RuntimeError(f"{name} gives {theirs} and pawserve {ours}: they do not compute the same")


def _first_predictions(arguments: argparse.Namespace, server: RunningPeer) -> list[list[float]]:
    until = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            predictions: list[list[float]] = _load(arguments, server, answers=COMPARED_IMAGES)
            return predictions
        except subprocess.CalledProcessError:
            if time.monotonic() > until:
                raise


def _versions(peers_dir: Path) -> dict[str, str]:
    """Of each installed peer and of ONNX Runtime in its environment."""
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
