"""Throughput and latency over HTTP beside gRPC, on one server.

    python -m benchmarks.serving.http --models models --photos photos/valid

Both protocols are measured in turns on the same server, so that other work on the machine affects both. Each client
sends one image as the body of POST /v1/classify, or in a `ClassifyRequest`, when it has its response. The CPU time is
that of the server's process, for each image.
"""

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ANY_PORT,
    SERVING_LIBRARIES,
    RunningServer,
    circumstances,
    heading,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.load import run_load
from serving.client import Client

PROTOCOLS = {"gRPC": "pawserve", "HTTP": "pawserve-http"}
LIBRARIES = (*SERVING_LIBRARIES, "uvicorn", "httptools", "starlette")


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16, 64], rounds=5, seconds=3.0)
    arguments = parser.parse_args()
    results = circumstances("http", LIBRARIES)
    with tempfile.TemporaryDirectory() as state:
        ours = ("serve", "--models", arguments.models, "--state", state, "--listen", ANY_PORT, "--http", ANY_PORT)
        with running("serving", *ours) as server:
            with Client(server.address) as client:
                (model,) = client.list_models()
            measured = {
                str(clients): measure(server, arguments.photos, clients, arguments.rounds, arguments.seconds)
                for clients in arguments.clients
            }
    results |= {"rounds": arguments.rounds, "engine": model.engine, "model": model.arch, "clients": measured}
    write_results(results, to_markdown(results))


def measure(server: RunningServer, photos: Path, clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over the rounds for each protocol, and of the ratios of HTTP to gRPC in each round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PROTOCOLS}
    for _ in range(rounds):
        for name, kind in PROTOCOLS.items():
            address = server.http_address if name == "HTTP" else server.address
            before_s = cpu_s(server.pid)
            one = run_load(kind, address, photos, clients=clients, seconds=seconds)
            one["cpu_ms_per_image"] = 1000 * (cpu_s(server.pid) - before_s) / one["images"]
            found[name].append(one)
    keys = ("images_per_s", "p50_ms", "p95_ms", "cpu_ms_per_image")
    medians: dict[str, Any] = {
        name: {key: statistics.median(one[key] for one in each) for key in keys} for name, each in found.items()
    }
    pairs = zip(found["HTTP"], found["gRPC"], strict=True)
    medians["ratio"] = statistics.median(http["images_per_s"] / grpc["images_per_s"] for http, grpc in pairs)
    return medians


def cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    rows = []
    for clients, measured in results["clients"].items():
        cells = [
            f"{one['images_per_s']:.0f} ({one['p50_ms']:.1f}, {one['p95_ms']:.1f}; {one['cpu_ms_per_image']:.2f})"
            for one in (measured["gRPC"], measured["HTTP"])
        ]
        rows.append((clients, *cells, f"{measured['ratio']:.2f}"))
    return [
        *heading("HTTP beside gRPC", results, f"{results['model']}; {results['engine']}."),
        "Images a second (median and 95th percentile of the latency in ms; CPU time of the server for each image in "
        f"ms, with the warm-up), medians of {results['rounds']} rounds:",
        "",
        *table(("clients", "gRPC", "HTTP", "HTTP / gRPC"), rows),
    ]


if __name__ == "__main__":
    main()
