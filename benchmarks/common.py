"""What benchmarks share: facts about the machine, images, processes, result files and tables."""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.system.cpus import available_cpus

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
SERVING_LIBRARIES = ("grpcio", "numpy", "onnxruntime", "protobuf", "simplejpeg")
ANY_PORT = "127.0.0.1:0"
STOP_TIMEOUT_S = 30


def cpu_name() -> str:
    """The processor as Linux names it."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return match[1] if match else platform.processor() or "an unknown processor"


def circumstances(what: str, command: str, libraries: Iterable[str] = ()) -> dict[str, Any]:
    """What was measured, when, by which command, and on which machine; the first fields of all results."""
    return {
        "what": what,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": {"cpu": cpu_name(), "cpus": available_cpus(), "python": platform.python_version()},
        "versions": {name: version(name) for name in libraries},
    }


def heading(title: str, results: dict[str, Any], facts: str = "") -> list[str]:
    """The first lines of a result page: title, circumstances and command.

    Args:
        facts: what else describes the measurement, a sentence or more.
    """
    machine = results["machine"]
    versions = "".join(f", {name} {number}" for name, number in results["versions"].items())
    return [
        f"# {title}, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}{versions}. {facts}".rstrip(),
        "",
        f"    {results['command']}",
        "",
    ]


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table."""
    head = list(head)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def write_results(results: dict[str, Any], page: str, folder: Path = RESULTS) -> None:
    """Write `DATE-WHAT.json` and `DATE-WHAT.md`, and print the page."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['date'][:10]}-{results['what']}"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def images_of(folder: Path, count: int) -> list[bytes]:
    """The contents of at most so many JPEGs, taken evenly from all below a folder.

    Raises:
        ValueError: if there are none.
    """
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        raise ValueError(f"there are no .jpg files in {folder}; give a folder of images with --photos")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]


def run_json(module: str, *arguments: object, timeout_s: float = 300) -> Any:
    """Run `python -m module arguments…` and parse the JSON that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    finished = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, timeout=timeout_s)
    return json.loads(finished.stdout)


@dataclass(frozen=True)
class RunningServer:
    """A server in a process of its own."""

    address: str
    pid: int


@contextmanager
def running(module: str, *arguments: object) -> Iterator[RunningServer]:
    """Run `python -m module arguments…`, which prints `ready on HOST:PORT` once it serves; stop it at the end.

    Raises:
        RuntimeError: if it ends without that line.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
            if ready is None:
                raise RuntimeError(f"{' '.join(command)} did not start")
            yield RunningServer(ready[1], server.pid)
        finally:
            server.terminate()
            server.communicate(timeout=STOP_TIMEOUT_S)
