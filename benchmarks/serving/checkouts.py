"""The server of this checkout beside those of other checkouts: throughput, and CPU time of the event loop.

    git worktree add ../before COMMIT
    python -m benchmarks.serving.checkouts --models models --photos photos/valid --others ../before

A checkout that reads another format of bundles gets models of its own: `--others ../before=/path/of/its/models`.

All servers run all the time and are measured in turns, in another order each round, with the same load generator, so
that other work on the machine affects all of them. The CPU time of the event loop is that of the server's main thread.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ANY_PORT,
    REPOSITORY,
    SERVING_LIBRARIES,
    RunningServer,
    absolute_path,
    circumstances,
    heading,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.load import run_load

Rounds = dict[tuple[int, str], list[dict[str, float]]]
"""(clients, checkout) -> the measurements of each round."""


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16, 64], rounds=7, seconds=4.0)
    parser.add_argument(
        "--others", nargs="+", required=True, metavar="FOLDER[=MODELS]", help="other checkouts, and their models"
    )
    arguments = parser.parse_args()
    results = circumstances("checkouts", SERVING_LIBRARIES)
    results |= {"rounds": arguments.rounds, "checkouts": measure(arguments)}
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each number of clients and each checkout, the medians of all rounds."""
    rounds: Rounds = {}
    with ExitStack() as stack:
        servers: dict[str, RunningServer] = {}  # the first one is that of this checkout
        others = (text.partition("=")[::2] for text in arguments.others)
        checkouts = [
            (absolute_path(folder), absolute_path(models or str(arguments.models))) for folder, models in others
        ]
        for folder, models in ((REPOSITORY, arguments.models), *checkouts):
            state = stack.enter_context(tempfile.TemporaryDirectory())
            options = ("serve", "--models", models, "--state", state, "--listen", ANY_PORT)
            servers[commit_of(folder)] = stack.enter_context(running("serving", *options, folder=folder))
        names = list(servers)
        for number in range(arguments.rounds):
            for clients in arguments.clients:
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    found = measure_one(servers[name], arguments.photos, clients, arguments.seconds)
                    rounds.setdefault((clients, name), []).append(found)
    medians: dict[str, dict[str, Any]] = {}
    for (clients, name), measured in rounds.items():
        row = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
        medians.setdefault(str(clients), {})[name] = row | {"all": [round(one["images_per_s"], 1) for one in measured]}
    return medians


def commit_of(folder: Path) -> str:
    """The commit of a checkout, which names it in the results."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure_one(server: RunningServer, photos: Path, clients: int, seconds: float) -> dict[str, float]:
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


def cpu_s(pid: int, thread: int | None = None) -> float:
    """CPU time of a process, or of one of its threads, in seconds: proc_pid_stat(5)."""
    part = f"task/{thread}/stat" if thread else "stat"
    fields = Path(f"/proc/{pid}/{part}").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    rows = []
    for clients, row in results["checkouts"].items():
        ours = next(iter(row.values()))["images_per_s"]
        for name, each in row.items():
            rows.append(
                (
                    clients,
                    name,
                    f"{each['images_per_s']:.0f}",
                    f"{ours / each['images_per_s']:.2f}",
                    f"{each['p50_ms']:.1f}",
                    f"{each['p99_ms']:.1f}",
                    f"{each['loop_cpu_ms']:.3f}",
                    f"{each['cpu_ms']:.2f}",
                )
            )
    head = ("clients", "checkout", "images/s", "first / this", "p50 ms", "p99 ms", "loop ms", "CPU ms")
    facts = f"Medians of {results['rounds']} rounds; CPU time for each request, of the event loop and of the server."
    return [*heading("Checkouts", results, facts), *table(head, rows)]


if __name__ == "__main__":
    main()
