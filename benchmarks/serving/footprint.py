"""What the server needs of a machine: time until it is ready, memory under load, and disk for its installation.

    python -m benchmarks.serving.footprint --models MODELS --photos DIR

Start: from the command to the line that says it is ready, the median of `--starts`. Memory: the server's resident set
before and after 64 clients put load on it, and its peak. `--installation`: what `pip install .[serving]` adds to a new
environment, which needs a package index and a minute.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ANY_PORT, REPOSITORY, circumstances, heading, make_parser, running, table, write_results
from benchmarks.serving.load import run_load

CLIENTS = 64
MIB = 2**20


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", seconds=10.0)
    parser.add_argument("--starts", type=int, default=5, help="how often the start is measured (5)")
    parser.add_argument("--installation", action="store_true", help="also install the serving extra, and measure it")
    arguments = parser.parse_args()
    results = circumstances("footprint")
    results["start_s"] = [measure_start(arguments.models) for _ in range(arguments.starts)]
    results["memory"] = measure_memory(arguments.models, arguments.photos, arguments.seconds)
    if arguments.installation:
        results["installation"] = measure_installation()
    write_results(results, to_markdown(results))


def measure_start(models: Path) -> float:
    """Seconds from the command to readiness, with an empty state folder."""
    with tempfile.TemporaryDirectory() as state:
        began = time.perf_counter()
        with running("serving", "serve", "--models", models, "--state", state, "--listen", ANY_PORT):
            return time.perf_counter() - began


def measure_memory(models: Path, photos: Path, seconds: float) -> dict[str, float]:
    """MiB of the server's resident set (proc_pid_status(5)), before and after load, and its peak."""
    with (
        tempfile.TemporaryDirectory() as state,
        running("serving", "serve", "--models", models, "--state", state, "--listen", ANY_PORT) as server,
    ):
        idle = _resident_mib(server.pid, "VmRSS")
        measured = run_load("pawserve", server.address, photos, clients=CLIENTS, seconds=seconds)
        after_load, peak = (_resident_mib(server.pid, name) for name in ("VmRSS", "VmHWM"))
    return {"idle_mib": idle, "after_load_mib": after_load, "peak_mib": peak, "images_per_s": measured["images_per_s"]}


def measure_installation() -> dict[str, Any]:
    """Megabytes (10^6 bytes, as `du` counts blocks) that the serving extra adds to a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder)
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


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    starts, memory = results["start_s"], results["memory"]
    after_load = f"{memory['after_load_mib']:.0f} MiB (peak {memory['peak_mib']:.0f})"
    rows = [
        (f"start to ready, median of {len(starts)}", f"{statistics.median(starts):.2f} s"),
        ("resident memory, ready", f"{memory['idle_mib']:.0f} MiB"),
        (f"resident memory, after {CLIENTS} clients at {memory['images_per_s']:.0f} images/s", after_load),
    ]
    if "installation" in results:
        installed = results["installation"]
        largest = ", ".join(f"{name} {size:.0f}" for name, size in installed["largest"].items())
        torch = "with torch" if installed["torch"] else "no torch"
        rows.append(("serving extra, installed", f"{installed['megabytes']:.0f} MB ({torch}; {largest})"))
    return [*heading("Footprint", results), *table(("", ""), rows)]


def _resident_mib(pid: int, name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / MIB


def _disk_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


if __name__ == "__main__":
    main()
