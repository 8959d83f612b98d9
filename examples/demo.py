"""The main job from end to end, with the commands that a user would type: `make demo`.

photos -> fit -> bundle -> server -> predict -> label -> statistics. Everything is written below one folder. The last
line of standard output is one line of JSON.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True)

READY = re.compile(r"ready on (\S+?):? ")
SERVER_START_S = 60
MARK = ".pawserve-demo"


class DemoError(RuntimeError):
    """A step that failed; the message says which."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Train, export, serve, predict, label and count, in one go.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier demo's is replaced")
    parser.add_argument("--data", type=Path, help="your photos: train/CLASS/*, valid/CLASS/*; default: drawings")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        facts = demo(options.out, options.data)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps({**facts, "seconds": round(time.monotonic() - began, 1)}))
    return 0


def demo(out: Path, data: Path | None) -> dict[str, Any]:
    """Run every step below `out` and return what the last line reports."""
    _empty(out)
    if data is None:
        data = out / "drawings"
        step("Draw 400 cats and dogs (drawings, not photos), so that nothing has to be downloaded.")
        run("training", "sample", "--out", data)
    step("Fine-tune: a head on the activations of a network that was trained on ImageNet.")
    run(
        *("training", "fit", "--data", data, "--run", out / "run", "--cache", out / "cache"),
        *("--arch", "tf_efficientnet_lite0"),
    )
    step("Export to ONNX, and prove that the file answers as the trained network does.")
    run("export", "bundle", "--run", out / "run", "--models", out / "models", "--name", "pets")
    run("export", "inspect", out / "models" / "pets" / "1")
    step("Serve it over gRPC on a free port of this machine.")
    server, address = start_server(out)
    try:
        facts = use_server(address, out)
    finally:
        stop_server(server)
    step("Look at these:")
    for name in ("run/report.html", "run/plots/confusion.png", "confusion.png"):
        console.print(f"  {out / name}", markup=False)
    return facts


def use_server(address: str, out: Path) -> dict[str, Any]:
    """Predict, label and count, through the command line."""
    truth = validation_photos(out)
    server = ("--server", address)
    step("Ask it about a few photos.")
    run("serving", "predict", *list(truth)[:: max(1, len(truth) // 4)][:4], *server)
    step(f"Ask it about all {len(truth):,} validation photos, five views each, and tell it the truth about them.")
    results = []
    by_label: dict[str, list[Path]] = {}
    for path, label in truth.items():
        by_label.setdefault(label, []).append(path)
    for label, paths in by_label.items():
        answer = run("serving", "predict", *paths, *server, "--label", label, "--views", "5", "--json", capture=True)
        results += [(label, result) for result in json.loads(answer)["results"]]
    step("Correct a label (and take the correction back): a token comes with each prediction.")
    label, first = results[0]
    other = next(name for name in by_label if name != label)
    run("serving", "label", first["token"], other, *server)
    run("serving", "label", first["token"], label, *server)
    step("How well is it doing?")
    run("serving", "stats", *server, "--plot", out / "confusion.png")
    statistics = json.loads(run("serving", "stats", *server, "--json", capture=True))["models"][0]
    return {
        "accuracy": statistics["accuracy"]["value"],
        "served": statistics["predictions"],
        "labelled": statistics["labels"],
        "confusion_matrix": statistics["confusion_matrix"],
    }


def validation_photos(out: Path) -> dict[Path, str]:
    """The run's validation photos, each with its class."""
    facts = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
    lines = (out / "run" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    folder = Path(facts["data"]["path"])
    return {folder / photo["path"]: facts["classes"][photo["label"]] for photo in map(json.loads, lines)}


def step(explanation: str) -> None:
    console.print(f"\n[bold]{explanation}[/bold]")


def run(package: str, *arguments: object, capture: bool = False) -> str:
    """Run `python -m package arguments…`, showing the command; its standard output is returned if captured."""
    command = ["python", "-m", package, *map(str, arguments)]
    shown = shlex.join(command)
    console.print(f"$ {shown if len(shown) < 300 else shown[:280] + ' …'}", style="cyan", markup=False)
    finished = subprocess.run(
        [sys.executable, *command[1:]], stdout=subprocess.PIPE if capture else sys.stderr, text=True, check=False
    )
    if finished.returncode != 0:
        raise DemoError(f"this command failed with exit code {finished.returncode}: {shown[:500]}")
    return finished.stdout or ""


def start_server(out: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server on a free port; returns it with its address once it is ready."""
    arguments = ("serve", "--models", out / "models", "--listen", "127.0.0.1:0", "--state", out / "state")
    command = ["python", "-m", "serving", *map(str, arguments)]
    console.print(f"$ {shlex.join(command)} &", style="cyan", markup=False)
    server = subprocess.Popen([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), True)
    for line in server.stdout:
        console.print(line.rstrip(), markup=False)
        if match := READY.search(line):
            return server, match[1]
    raise DemoError(f"the server did not start: exit code {server.wait(SERVER_START_S)}")


def stop_server(server: subprocess.Popen[str]) -> None:
    """Ask the server to finish what it is doing and stop."""
    server.send_signal(signal.SIGTERM)
    if server.wait(timeout=60) != 0:
        raise DemoError(f"the server stopped with exit code {server.returncode}")


def _empty(out: Path) -> None:
    """Begin with an empty folder; only one that an earlier demo made is removed."""
    if out.exists():
        if not (out / MARK).exists():
            raise DemoError(f"{out} exists and is not an earlier demo's; move it, or give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()


if __name__ == "__main__":
    sys.exit(main())
