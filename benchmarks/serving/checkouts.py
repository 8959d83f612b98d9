"""The server of this checkout beside those of other checkouts: throughput, and CPU time of the event loop.

    git worktree add ../before COMMIT
    python -m benchmarks.serving.checkouts --models models --photos photos/valid --others ../before

A checkout that reads another format of bundles gets models of its own: `--others ../before=/path/of/its/models`.

All servers run all the time and are measured in turns, in another order each round, with the same load generator, so
that other work on the machine affects all of them. The CPU time of the event loop is that of the server's main thread.
"""

import argparse
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, absolute_path, circumstances, heading, make_parser, table, write_results
from benchmarks.processes import RunningServer, cpu_s, pawserve
from benchmarks.rounds import measure_in_turns, medians
from benchmarks.serving.load import run_load


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16, 64], rounds=7, seconds=4.0)
    parser.add_argument(
        "--others", nargs="+", required=True, metavar="FOLDER[=MODELS]", help="other checkouts, and their models"
    )
    arguments = parser.parse_args()
    results = circumstances("checkouts")
    results |= {"rounds": arguments.rounds, "checkouts": measure(arguments)}
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each number of clients and each checkout, the medians of all rounds."""
    others = [text.partition("=")[::2] for text in arguments.others]
    checkouts = [(REPOSITORY, arguments.models)]  # the first one is this checkout
    checkouts += [(absolute_path(folder), absolute_path(models or str(arguments.models))) for folder, models in others]
    with ExitStack() as stack:
        ways = {}
        for folder, models in checkouts:
            server = stack.enter_context(pawserve(models, folder=folder))
            ways[commit_of(folder)] = partial(measure_one, server, arguments.photos, arguments.seconds)
        measured = measure_in_turns(arguments.rounds, arguments.clients, ways)
    return {
        clients: {
            name: {**medians(rounds), "all": [round(one["images_per_s"], 1) for one in rounds]}
            for name, rounds in row.items()
        }
        for clients, row in measured.items()
    }


def commit_of(folder: Path) -> str:
    """The commit of a checkout, which names it in the results."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure_one(server: RunningServer, photos: Path, seconds: float, clients: int) -> dict[str, float]:
    """Load a server; its CPU times include the load's warm-up, and so do the images that they are divided by."""
    loop_s, all_s = cpu_s(server.pid, server.pid), cpu_s(server.pid)
    found = run_load("pawserve", server.address, photos, clients=clients, seconds=seconds)
    requests = found["images"] + found["warm_up_images"]
    return {
        "images_per_s": found["images_per_s"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "loop_cpu_ms": 1000 * (cpu_s(server.pid, server.pid) - loop_s) / requests,
        "cpu_ms": 1000 * (cpu_s(server.pid) - all_s) / requests,
    }


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    rows = []
    for clients, row in results["checkouts"].items():
        ours = next(iter(row.values()))["images_per_s"]
        for name, each in row.items():
            rate = each["images_per_s"]
            waits = (f"{each['p50_ms']:.1f}", f"{each['p99_ms']:.1f}")
            costs = (f"{each['loop_cpu_ms']:.3f}", f"{each['cpu_ms']:.2f}")
            rows.append((clients, name, f"{rate:.0f}", f"{ours / rate:.2f}", *waits, *costs))
    head = ("clients", "checkout", "images/s", "first / this", "p50 ms", "p99 ms", "loop ms", "CPU ms")
    facts = f"Medians of {results['rounds']} rounds; CPU time for each request, of the event loop and of the server."
    return [*heading("Checkouts", results, facts), table(head, rows)]


if __name__ == "__main__":
    main()
