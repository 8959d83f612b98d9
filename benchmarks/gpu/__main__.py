"""Measure a GPU host: training, engines, parity with the CPU, serving; one JSON file and one Markdown page.

    python -m benchmarks.gpu --out gpu-check [--data DIR] [--seconds 480]

Each part is a process with a time limit. A part that cannot run here, or for which no time is left, is skipped with its
reason; one that fails does not end the others. The files are written after each part.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, absolute_path
from benchmarks.gpu.report import to_page
from serving.system.files import write_atomically

LIMITS_S = {
    "host": 40,
    "head": 100,
    "network": 70,
    "fastai": 80,
    "bundle": 110,
    "engines": 120,
    "parity": 110,
    "serving": 150,
}
"""The parts in their order, and how long each may take of WHOLE_S; longer with more --seconds."""
WHOLE_S = 480.0
MIN_S = 5.0
"""A part is not begun if less is left of all the time."""
SKIPPED = 3
"""Exit code of a part that cannot run here."""
REASON_CHARS = 400


def main(given: Sequence[str] | None = None) -> int:
    """Measure; returns 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=absolute_path, default=absolute_path("gpu-check"), help="folder of the two files")
    parser.add_argument("--data", type=absolute_path, help="images as `fit` reads them (drawn ones)")
    parser.add_argument("--seconds", type=float, default=WHOLE_S, help="for all parts together (%(default)g)")
    parser.add_argument("--parts", nargs="+", choices=LIMITS_S, default=list(LIMITS_S), help="what to measure")
    arguments = parser.parse_args(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the running part ends too
    deadline = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        work = Path(name)
        for part in arguments.parts:
            command = [sys.executable, "-m", "benchmarks.gpu.parts", part, str(work), str(arguments.data or "")]
            limit_s = LIMITS_S[part] * max(1.0, arguments.seconds / WHOLE_S)
            found = run_part(command, work / f"{part}.json", min(limit_s, deadline - time.monotonic()))
            results["parts"][part] = found
            print(f"{part}: {found['status']} after {found['seconds']:.0f} s {found.get('reason', '')}", flush=True)
            write_atomically(arguments.out / "gpu-check.json", json.dumps(results, indent=2) + "\n")
            write_atomically(arguments.out / "gpu-check.md", to_page(results))
    print(f"\n{arguments.out / 'gpu-check.md'}\n{arguments.out / 'gpu-check.json'}")
    return int(any(part["status"] == "failed" for part in results["parts"].values()))


def run_part(command: Sequence[str], output: Path, limit_s: float) -> dict[str, Any]:
    """Run a part; its status (done, skipped or failed), seconds, reason, and the result that it wrote to `output`."""
    if limit_s < MIN_S:
        return {"status": "skipped", "seconds": 0.0, "reason": "no time is left"}
    began = time.monotonic()
    # a session of its own, so that what it started ends with it
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            printed = ""
        finally:
            _end(process)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
    if output.exists():  # what was measured until the limit, too
        found["result"] = json.loads(output.read_text(encoding="utf-8"))
    if process.returncode == 0:
        return {"status": "done", **found}
    if process.returncode == -signal.SIGKILL:
        return {"status": "skipped", **found, "reason": f"it took longer than {limit_s:.0f} s"}
    reason = printed.strip()[-REASON_CHARS:] or f"exit code {process.returncode}"
    return {"status": "skipped" if process.returncode == SKIPPED else "failed", **found, "reason": reason}


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
