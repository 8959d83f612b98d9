"""Latency, throughput, memory and start of the server, beside the same work in process and beside the baseline server.

    python -m benchmarks.serving.throughput --models models --photos photos/valid

Latency: one client sends one image at a time; the same images are decoded and computed in this process, in turns. The
difference of the medians is what the server adds. Throughput: 1, 16 and 64 clients. All servers run all the time and
are measured in turns, so that other work on the machine affects all of them. The baseline runs with several layouts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.common import circumstances, heading, images_of, make_parser, table, write_results
from benchmarks.in_process import InProcessClassifier
from benchmarks.processes import memory_mib, pawserve, running
from benchmarks.rounds import measure_in_turns, medians
from benchmarks.serving.load import run_load
from serving.bundle.folder import find_bundles
from serving.bundle.manifest import Bundle
from serving.client import Client
from serving.engine.onnx import choose_precision
from serving.system.cpus import available_cpus

WARM_UP_IMAGES = 10


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16, 64], rounds=5, seconds=3.0)
    parser.add_argument("--photos-in-turn", type=int, default=300, help="for the latency of one client (300)")
    arguments = parser.parse_args()
    (bundle,) = find_bundles(arguments.models, [])
    results = circumstances("serving")
    cpus = available_cpus()
    layouts = {f"baseline {cpus}x1, batch {size}": (cpus, 1, size) for size in (1, 4)}
    layouts[f"baseline 1x{cpus}, batch 8"] = (1, cpus, 8)
    with ExitStack() as stack:
        server = stack.enter_context(pawserve(arguments.models))
        footprint = {"start_s": server.start_s, "ready_mib": memory_mib(server.pid, "VmRSS")}
        servers = {"pawserve": ("pawserve", server.address)}
        with Client(server.address) as client:
            (model,) = client.list_models()
        images = images_of(arguments.photos, arguments.photos_in_turn)
        latency = measure_latency(bundle, server.address, images)
        for name, layout in layouts.items():
            options = ("--bundle", bundle.folder, "--layout", *layout)
            baseline = stack.enter_context(running("benchmarks.serving.baseline_server", *options))
            servers[name] = ("baseline", baseline.address)
        throughput = measure_throughput(servers, arguments)
        footprint["peak_mib"] = memory_mib(server.pid, "VmHWM")
    results |= {
        "rounds": arguments.rounds,
        "engine": model.engine,
        "model": f"{bundle.manifest.arch} in {choose_precision(bundle.manifest)}",
        "latency_ms": latency,
        "throughput": throughput,
        "footprint": footprint,
    }
    write_results(results, to_markdown(results))


def measure_latency(bundle: Bundle, address: str, images: list[bytes]) -> dict[str, float]:
    """Medians in milliseconds, over gRPC and in this process, with an engine of one thread and one of all CPUs."""

    def in_process(threads: int) -> Callable[[bytes], object]:
        classifier = InProcessClassifier(bundle.folder, choose_precision(bundle.manifest), threads=threads)
        return lambda image: classifier.classify([classifier.decode(image)])

    with Client(address) as client:
        ways: dict[str, Callable[[bytes], object]] = {
            "over_grpc": lambda image: client.classify([image]),
            "in_process": in_process(1),
            "in_process_all_cpus": in_process(available_cpus()),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for image in [*images[:WARM_UP_IMAGES], *images]:
            for name, classify in ways.items():
                began = time.perf_counter()
                classify(image)
                times[name].append(1000 * (time.perf_counter() - began))
    found = {name: statistics.median(each[WARM_UP_IMAGES:]) for name, each in times.items()}
    return {**found, "added": found["over_grpc"] - found["in_process"], "photos": len(images)}


def measure_throughput(servers: dict[str, tuple[str, str]], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each number of clients and each server, the images a second of every round and the medians."""

    def load(kind: str, address: str, clients: int) -> dict[str, float]:
        found: dict[str, float] = run_load(kind, address, arguments.photos, clients=clients, seconds=arguments.seconds)
        return found

    ways = {name: partial(load, *server) for name, server in servers.items()}
    return {
        clients: {
            name: {
                **medians(rounds, "images_per_s", "p50_ms", "p95_ms"),
                "all_images_per_s": [round(one["images_per_s"], 1) for one in rounds],
            }
            for name, rounds in row.items()
        }
        for clients, row in measure_in_turns(arguments.rounds, arguments.clients, ways).items()
    }


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    cpus, latency, footprint = results["machine"]["cpus"], results["latency_ms"], results["footprint"]
    names = list(next(iter(results["throughput"].values())))
    rows = []
    for clients, row in results["throughput"].items():
        cells = [f"{row[name]['images_per_s']:.0f} ({row[name]['p50_ms']:.0f})" for name in names]
        best = max(row[name]["images_per_s"] for name in names if name != "pawserve")
        rows.append((clients, *cells, f"{row['pawserve']['images_per_s'] / best:.2f}"))
    return [
        *heading("Serving", results, f"{results['model']}; pawserve's layout: {results['engine']}."),
        f"One client, one image at a time, medians of {latency['photos']} images: {latency['over_grpc']:.2f} ms over "
        f"gRPC; {latency['in_process']:.2f} ms for decoding, view and engine in process with one thread, as an "
        f"instance of the server has, and {latency['in_process_all_cpus']:.2f} ms with {cpus}, as single requests may "
        f"have. The server adds {latency['added']:.2f} ms to the first of these.",
        f"Images a second (and a request's median latency in milliseconds), medians of {results['rounds']} rounds:",
        table(("clients", *names, "pawserve / best baseline"), rows),
        f"pawserve was ready {footprint['start_s']:.2f} s after its command. Its resident memory was "
        f"{footprint['ready_mib']:.0f} MiB then and {footprint['peak_mib']:.0f} MiB at most.",
    ]


if __name__ == "__main__":
    main()
