"""What the server takes of a machine: time until it is ready, memory under load, and the size of its installation.

    python -m benchmarks.serving.footprint --models MODELS --photos DIR

Start: from the command to the line that says it is ready, medians of `--starts`. The first start of a model measures
its plan too, which later ones read from the state folder, so both are told. Memory: the server's resident set before
and after 64 callers asked, and its peak. `--installation`: what `pip install .[serving]` adds to a new environment,
which needs a package index and a minute.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.serving.throughput import RESULTS, cpu_name
from serving.system.cpus import available_cpus

REPOSITORY = Path(__file__).parents[2]
CALLERS = 64
MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="holds NAME/VERSION/model.json, of one NAME")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of load, before memory is read (10)")
    parser.add_argument("--installation", action="store_true", help="also install the serving extra, and measure it")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "what": "footprint",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.serving.footprint --models MODELS --photos PHOTOS"
        + " --installation" * arguments.installation,
        "machine": {"cpu": cpu_name(), "cpus": available_cpus(), "python": platform.python_version()},
        "start": measure_starts(arguments.models, arguments.starts),
        "memory": measure_memory(arguments.models, arguments.photos, arguments.seconds),
    }
    if arguments.installation:
        results["installation"] = measure_installation()
    report = to_markdown(results)
    print(report)
    path = RESULTS / f"{results['date'][:10]}-footprint"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text(report)
    return 0


def measure_starts(models: Path, count: int) -> dict[str, Any]:
    """Seconds from the command to readiness: first with a new state folder, then so many times with what it holds."""
    with tempfile.TemporaryDirectory() as state:
        seconds = []
        for _ in range(count + 1):
            begin = time.perf_counter()
            server, _ = _start(models, Path(state))
            seconds.append(time.perf_counter() - begin)
            _stop(server)
    return {"first_s": seconds[0], "later_s": seconds[1:], "median_s": statistics.median(seconds[1:])}


def measure_memory(models: Path, photos: Path, seconds: float) -> dict[str, float]:
    """MiB of the server's resident set (proc_pid_status(5)), before and under load, and its peak."""
    with tempfile.TemporaryDirectory() as state:
        server, address = _start(models, Path(state))
        try:
            idle = _resident_mib(server.pid, "VmRSS")
            load = [sys.executable, "-m", "benchmarks.serving.load", "--address", address, "--server", "pawserve"]
            load += ["--photos", str(photos), "--callers", str(CALLERS), "--seconds", str(seconds)]
            answer = subprocess.run(load, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
            under_load, peak = (_resident_mib(server.pid, name) for name in ("VmRSS", "VmHWM"))
        finally:
            _stop(server)
    rate = json.loads(answer.stdout)["images_per_s"]
    return {"idle_mib": idle, "after_load_mib": under_load, "peak_mib": peak, "images_per_s": rate}


def measure_installation() -> dict[str, Any]:
    """Megabytes (10^6 bytes, as `du` counts blocks) that the serving extra adds to a new environment."""
    with tempfile.TemporaryDirectory() as text:
        environment = Path(text)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        before = _disk_bytes(environment)
        install = ["install", "--quiet", "--no-compile", "--disable-pip-version-check", f"{REPOSITORY}[serving]"]
        constraints = ["-c", str(REPOSITORY / "constraints.txt")]
        subprocess.run([environment / "bin/pip", *install, *constraints], check=True, timeout=300)
        packages = next(environment.glob("lib/python3*/site-packages"))
        largest = sorted(((_disk_bytes(path), path.name) for path in packages.iterdir() if path.is_dir()), reverse=True)
        torch = (packages / "torch").exists()
        total = _disk_bytes(environment) - before
    return {
        "megabytes": total / 1e6,
        "torch": torch,
        "largest": {name: round(size / 1e6, 1) for size, name in largest[:6]},
    }


def to_markdown(results: dict[str, Any]) -> str:
    """The results as a page for people."""
    machine, start, memory = results["machine"], results["start"], results["memory"]
    lines = [
        f"# Footprint, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}.",
        "",
        f"    {results['command']}",
        "",
        "| | |",
        "|---|---|",
        f"| start to ready, median of {len(start['later_s'])} | {start['median_s']:.2f} s |",
        f"| start to ready, first start of a model | {start['first_s']:.2f} s |",
        f"| resident memory, ready | {memory['idle_mib']:.0f} MiB |",
        f"| resident memory, after {CALLERS} callers at {memory['images_per_s']:.0f} images/s | "
        f"{memory['after_load_mib']:.0f} MiB (peak {memory['peak_mib']:.0f}) |",
    ]
    if "installation" in results:
        installed = results["installation"]
        largest = ", ".join(f"{name} {size:.0f}" for name, size in installed["largest"].items())
        torch = "with torch" if installed["torch"] else "no torch"
        lines.append(f"| serving extra, installed | {installed['megabytes']:.0f} MB ({torch}; {largest}) |")
    return "\n".join(lines) + "\n"


def _start(models: Path, state: Path) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "serving", "serve", "--models", str(models), "--state", str(state)]
    server = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    ready = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
    if ready is None:
        raise RuntimeError(f"the server did not start:\n{server.communicate()[1]}")
    return server, ready[1]


def _stop(server: "subprocess.Popen[str]") -> None:
    server.terminate()
    server.communicate(timeout=30)


def _resident_mib(pid: int, name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / MIB


def _disk_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
