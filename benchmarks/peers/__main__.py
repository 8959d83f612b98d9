"""pawserve against Triton, LitServe and BentoML: the same INT8 graph, the same decode, the same machine.

    python -m benchmarks.peers.install --peers-dir DIR
    python -m benchmarks.peers --bundle MODELS/NAME/VERSION --photos DIR --peers-dir DIR

Each peer tries its settings and keeps its best. Throughput: pawserve and the peer run side by side and are asked by
turns at 1, 16 and 64 callers; the ratio is within a round. Latency: all of them, by turns, at one offered load: half of
what the slowest can. In each round of the first, processes without any server do the same work: the most that a server
could reach. `--parts` and `--peers` do less at a time; what is done is kept in the day's results.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.report import to_markdown
from benchmarks.peers.servers import SETTINGS, Running, Setting, describe, running
from benchmarks.serving.throughput import RESULTS, cpu_name
from serving.bundle.manifest import open_bundle
from serving.system.cpus import available_cpus

PARTS = ("settings", "throughput", "latency")
PEERS = [name for name in SETTINGS if name != "pawserve"]
PHOTOS_COMPARED = 8
TOLERANCE = 1e-3
READY_TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="MODELS/NAME/VERSION, with an INT8 graph")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--peers-dir", type=Path, required=True, help="where benchmarks.peers.install put them")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many are told (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes (2)")
    arguments = parser.parse_args()
    arguments.bundle, arguments.peers_dir = arguments.bundle.resolve(), arguments.peers_dir.resolve()
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-peers.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results.update(_circumstances(arguments))
    for part in arguments.parts:
        _MEASUREMENTS[part](arguments, results)
        # each part may have been measured by a command of its own
        results.setdefault("commands", {})[part] = (
            "python -m benchmarks.peers --bundle MODELS/NAME/VERSION --photos PHOTOS --peers-dir PEERS "
            f"--rounds {arguments.rounds} --parts {part} --seconds {arguments.seconds:g}"
        )
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n")
        path.with_suffix(".md").write_text(to_markdown(results))
    print(to_markdown(results))
    return 0


def measure_settings(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Every setting of the chosen peers once, at 16 and at 64 callers: the best on (geometric) average is kept."""
    for peer in arguments.peers:
        tried = []
        for setting in SETTINGS[peer]:
            with _start(arguments, peer, setting) as server:
                _first_answers(arguments, server)
                rates = [_load(arguments, server, callers=callers)["images_per_s"] for callers in (16, 64)]
            tried.append({"setting": dict(setting), "images_per_s": dict(zip(("16", "64"), rates, strict=True))})
            print(f"{peer}: {describe(setting)}: {rates[0]:.0f} and {rates[1]:.0f} images/s", file=sys.stderr)
        best = max(tried, key=lambda one: one["images_per_s"]["16"] * one["images_per_s"]["64"])
        results.setdefault("settings", {})[peer] = {"tried": tried, "best": best["setting"]}


def measure_throughput(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Each chosen peer by turns with pawserve."""
    for peer in arguments.peers:
        with ExitStack() as stack:
            servers = {name: stack.enter_context(_start_best(arguments, results, name)) for name in ("pawserve", peer)}
            _check_answers(arguments, servers)
            rounds: dict[str, dict[str, list[dict[str, float]]]] = {}
            limits = []
            for number in range(arguments.rounds):
                limits.append(_limit(arguments))
                for callers in arguments.callers:
                    for name in servers if number % 2 == 0 else reversed(servers):  # who goes first changes
                        answer = _load(arguments, servers[name], callers=callers)
                        rounds.setdefault(str(callers), {}).setdefault(name, []).append(answer)
        results.setdefault("throughput", {})[peer] = rounds
        results.setdefault("limit", {})[peer] = limits


def measure_latency(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """All servers by turns at half of the slowest's capacity."""
    capacities = {peer: _capacity(results, peer) for peer in results["throughput"]}
    rate = min(capacities.values()) / 2
    with ExitStack() as stack:
        names = ["pawserve", *capacities]
        servers = {name: stack.enter_context(_start_best(arguments, results, name)) for name in names}
        _check_answers(arguments, servers)
        rounds: dict[str, list[dict[str, float]]] = {}
        for number in range(arguments.rounds):
            for name in servers if number % 2 == 0 else reversed(servers):
                rounds.setdefault(name, []).append(_load(arguments, servers[name], rate=rate))
    results["latency"] = {"images_per_s": rate, "rounds": rounds}


_MEASUREMENTS = {"settings": measure_settings, "throughput": measure_throughput, "latency": measure_latency}


def _capacity(results: dict[str, Any], peer: str) -> float:
    """The most images a second that a peer had in any round's median, over the numbers of callers."""
    by_callers = results["throughput"][peer].values()
    return max(sorted(one["images_per_s"] for one in row[peer])[len(row[peer]) // 2] for row in by_callers)


def _start(arguments: argparse.Namespace, peer: str, setting: Setting):
    return running(peer, setting, arguments.bundle, arguments.peers_dir)


def _start_best(arguments: argparse.Namespace, results: dict[str, Any], peer: str):
    setting = results.get("settings", {}).get(peer, {}).get("best", SETTINGS[peer][0])
    return _start(arguments, peer, setting)


def _load(arguments: argparse.Namespace, server: Running, **load: float) -> dict[str, float]:
    """One measurement, by a process of its own."""
    answer: dict[str, float] = _ask(arguments, server, "--seconds", str(arguments.seconds), **load)
    return answer


def _limit(arguments: argparse.Namespace) -> float:
    """Images a second without a server."""
    command = [sys.executable, "-m", "benchmarks.peers.limit", "--bundle", str(arguments.bundle)]
    command += ["--photos", str(arguments.photos), "--seconds", str(arguments.seconds)]
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
    return float(answer["images_per_s"])


def _ask(arguments: argparse.Namespace, server: Running, *more: str, **load: float) -> Any:
    command = [sys.executable, "-m", "benchmarks.peers.load", "--peer", server.peer, "--port", str(server.port)]
    command += ["--setting", json.dumps(dict(server.setting)), "--photos", str(arguments.photos), *more]
    for name, value in load.items():
        command += [f"--{name}", str(value)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def _check_answers(arguments: argparse.Namespace, servers: dict[str, Running]) -> None:
    """Wait until every server answers, and hold the answers against each other: they all must do the same work."""
    answers = {name: _first_answers(arguments, server) for name, server in servers.items()}
    for name, probabilities in answers.items():
        for one, other in zip(probabilities, answers["pawserve"], strict=True):
            if max(abs(a - b) for a, b in zip(one, other, strict=True)) > TOLERANCE:
                raise RuntimeError(f"{name} answers {one}, and pawserve {other}: they do not compute the same")


def _first_answers(arguments: argparse.Namespace, server: Running) -> list[list[float]]:
    until = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            answers: list[list[float]] = _ask(arguments, server, "--seconds", "0", answers=PHOTOS_COMPARED)
            return answers
        except subprocess.CalledProcessError:
            if time.monotonic() > until:
                raise


def _circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    manifest = open_bundle(arguments.bundle).manifest
    versions = {}
    for peer, package in (("triton", "nvidia-pytriton"), ("litserve", "litserve"), ("bentoml", "bentoml")):
        python = arguments.peers_dir / peer / "bin/python"
        if python.exists():
            code = f"from importlib.metadata import version as v; print(v('{package}'), v('onnxruntime'))"
            answer = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
            versions[package], versions[f"onnxruntime beside {package}"] = answer.stdout.split()
    return {
        "what": "peers",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": arguments.rounds,
        "machine": {"cpu": cpu_name(), "cpus": available_cpus(), "python": platform.python_version()},
        "versions": versions,
        "model": f"{manifest.arch} in int8",
    }


if __name__ == "__main__":
    sys.exit(main())
