"""Throughput and latency over HTTP beside gRPC, on one server.

    python -m benchmarks.serving.http --models models --photos photos/valid

Both protocols are measured in turns on the same server, so that other work on the machine affects both. Each client
sends one image as the body of POST /v1/classify, or in a `ClassifyRequest`, when it has its response. The CPU time is
that of the server's process, for each image.
"""

from functools import partial
from typing import Any

from benchmarks.common import SERVING_LIBRARIES, circumstances, heading, make_parser, table, write_results
from benchmarks.processes import ANY_PORT, cpu_s, pawserve
from benchmarks.rounds import measure_in_turns, median_ratio, medians
from benchmarks.serving.load import run_load
from serving.client import Client

FIGURES = ("images_per_s", "p50_ms", "p95_ms", "cpu_ms_per_image")
LIBRARIES = (*SERVING_LIBRARIES, "uvicorn", "httptools", "starlette")


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16, 64], rounds=5, seconds=3.0)
    arguments = parser.parse_args()
    results = circumstances("http", LIBRARIES)
    with pawserve(arguments.models, "--http", ANY_PORT) as server:

        def measure(kind: str, address: str, clients: int) -> dict[str, float]:
            before_s = cpu_s(server.pid)
            one = run_load(kind, address, arguments.photos, clients=clients, seconds=arguments.seconds)
            return {**one, "cpu_ms_per_image": 1000 * (cpu_s(server.pid) - before_s) / one["images"]}

        with Client(server.address) as client:
            (model,) = client.list_models()
        ways = {
            "gRPC": partial(measure, "pawserve", server.address),
            "HTTP": partial(measure, "pawserve-http", server.http_address),
        }
        measured = measure_in_turns(arguments.rounds, arguments.clients, ways)
    results |= {"rounds": arguments.rounds, "engine": model.engine, "model": model.arch}
    results["clients"] = {
        clients: {
            **{name: medians(rounds, *FIGURES) for name, rounds in row.items()},
            "ratio": median_ratio(row["HTTP"], row["gRPC"]),
        }
        for clients, row in measured.items()
    }
    write_results(results, to_markdown(results))


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
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
        table(("clients", "gRPC", "HTTP", "HTTP / gRPC"), rows),
    ]


if __name__ == "__main__":
    main()
