"""What the server costs: latency against the same work in process, throughput against the plainest rival.

    python -m benchmarks.serving.throughput --models models --photos photos/valid

Latency: one caller, one photo at a time, by turns over gRPC and in this process (decode, view, engine). The difference
of the medians is what the server adds. Throughput: 1, 16 and 64 callers; all servers run all the time, and are asked by
turns, so that whatever else the machine does meets all of them. The rival may choose its best engine settings.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import Bundle
from serving.client import Client
from serving.engine.base import EngineLayout
from serving.engine.onnx import choose_precision, load_engines
from serving.image.views import make_views
from serving.system.cpus import available_cpus

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("grpcio", "numpy", "onnxruntime", "protobuf", "simplejpeg")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="holds NAME/VERSION/model.json, of one NAME")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; medians are told (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes (3)")
    parser.add_argument("--photos-in-turn", type=int, default=300, help="for the latency of one caller (300)")
    arguments = parser.parse_args()
    (bundle,) = find_bundles(arguments.models, [])
    cpus = available_cpus()
    rivals = {f"baseline {cpus}x1, batch {size}": (cpus, 1, size) for size in (1, 4)}
    rivals[f"baseline 1x{cpus}, batch 8"] = (1, cpus, 8)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ours = ["-m", "serving", "serve", "--models", str(arguments.models), "--state", folder]
        servers = {"pawserve": ("pawserve", stack.enter_context(running([*ours, "--listen", "127.0.0.1:0"])))}
        with Client(servers["pawserve"][1]) as client:
            (model,) = client.list_models()
        latency = measure_latency(bundle, servers["pawserve"][1], photos_of(arguments.photos, arguments.photos_in_turn))
        for name, (instances, threads, size) in rivals.items():
            command = ["-m", "benchmarks.serving.baseline_server", "--bundle", str(bundle.folder)]
            command += ["--instances", str(instances), "--threads", str(threads), "--max-batch-size", str(size)]
            servers[name] = ("baseline", stack.enter_context(running(command)))
        throughput = measure_throughput(servers, arguments)
    results = {
        "what": "serving",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.serving.throughput --models MODELS --photos PHOTOS "
        f"--rounds {arguments.rounds} --seconds {arguments.seconds:g}",
        "rounds": arguments.rounds,
        "machine": {"cpu": cpu_name(), "cpus": cpus, "python": platform.python_version()},
        "versions": {name: version(name) for name in LIBRARIES},
        "engine": model.engine,
        "model": f"{bundle.manifest.arch} in {choose_precision(bundle.manifest)}",
        "latency_ms": latency,
        "throughput": throughput,
    }
    report = to_markdown(results)
    print(report)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results['date'][:10]}-serving"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text(report)
    return 0


@contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """A server in a process of its own; yields its address."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
            assert address, f"{command} did not start"
            yield address[1]
        finally:
            server.terminate()


def photos_of(folder: Path, count: int) -> list[bytes]:
    """Photos from all of a folder."""
    paths = sorted(folder.rglob("*.jpg"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]


def measure_latency(bundle: Bundle, address: str, photos: list[bytes]) -> dict[str, float]:
    """Medians in milliseconds, over gRPC and in this process, with an engine of one thread and one of all CPUs."""
    preprocess = bundle.manifest.preprocess

    def in_process(threads: int) -> Callable[[bytes], object]:
        plan = EngineLayout(instances=1, threads=threads, max_batch_size=1)
        (engine,) = load_engines(bundle, choose_precision(bundle.manifest), plan)
        return lambda photo: engine.run(make_views(preprocess.canvas(photo), preprocess.crop))

    with Client(address) as client:
        ways: dict[str, Callable[[bytes], object]] = {
            "over_grpc": lambda photo: client.classify([photo]),
            "in_process": in_process(1),
            "in_process_all_cpus": in_process(available_cpus()),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for photo in [*photos[:10], *photos]:
            for name, classify in ways.items():
                begin = time.perf_counter()
                classify(photo)
                times[name].append(1000 * (time.perf_counter() - begin))
    medians = {name: statistics.median(each[10:]) for name, each in times.items()}
    return {**medians, "added": medians["over_grpc"] - medians["in_process"], "photos": len(photos)}


def measure_throughput(servers: dict[str, tuple[str, str]], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each number of callers and each server, the images a second of every round and their median."""
    rounds: dict[tuple[int, str], list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for callers in arguments.callers:
            for name, (kind, address) in servers.items():
                command = ["-m", "benchmarks.serving.load", "--address", address, "--server", kind]
                command += ["--photos", str(arguments.photos), "--callers", str(callers)]
                command += ["--seconds", str(arguments.seconds)]
                answer = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True, timeout=300)
                rounds.setdefault((callers, name), []).append(json.loads(answer.stdout))
    table: dict[str, dict[str, Any]] = {}
    for (callers, name), answers in rounds.items():
        table.setdefault(str(callers), {})[name] = {
            "images_per_s": statistics.median(answer["images_per_s"] for answer in answers),
            "p50_ms": statistics.median(answer["p50_ms"] for answer in answers),
            "p95_ms": statistics.median(answer["p95_ms"] for answer in answers),
            "all_images_per_s": [round(answer["images_per_s"], 1) for answer in answers],
        }
    return table


def to_markdown(results: dict[str, Any]) -> str:
    """The results as a page for people."""
    machine, latency = results["machine"], results["latency_ms"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        f"# Serving, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}, {versions}. {results['model']}; "
        f"pawserve's plan: {results['engine']}.",
        "",
        f"    {results['command']}",
        "",
        f"One caller, one photo at a time, medians of {latency['photos']} photos: {latency['over_grpc']:.2f} ms over "
        f"gRPC; {latency['in_process']:.2f} ms for decode, view and engine in process with one thread, as an instance "
        f"of the server has, and {latency['in_process_all_cpus']:.2f} ms with {machine['cpus']}, as a lone row may.",
        f"The server adds {latency['added']:.2f} ms to the first of these.",
        "",
        f"Images a second (and a request's median latency in milliseconds), medians of {results['rounds']} rounds:",
        "",
    ]
    names = list(next(iter(results["throughput"].values())))
    lines.append(f"| callers | {' | '.join(names)} | pawserve / best baseline |")
    lines.append("|---" * (len(names) + 2) + "|")
    for callers, row in results["throughput"].items():
        cells = [f"{row[name]['images_per_s']:.0f} ({row[name]['p50_ms']:.0f})" for name in names]
        best = max(row[name]["images_per_s"] for name in names if name != "pawserve")
        lines.append(f"| {callers} | {' | '.join(cells)} | {row['pawserve']['images_per_s'] / best:.2f} |")
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """The processor as Linux names it."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return match[1] if match else platform.processor() or "an unknown processor"


if __name__ == "__main__":
    sys.exit(main())
