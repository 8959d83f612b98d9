"""The whole workflow, from images to statistics, with the commands that a user would type: `make demo`.

images -> fit -> bundle -> server -> predict -> label -> statistics. Everything is written below one folder. The last
line of standard output is one JSON document.
"""

import argparse
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from serving.cli import options as types

console = Console(stderr=True, highlight=False, soft_wrap=True)

READY = re.compile(r"ready on (\S+?):? .*HTTP on (http\S+?);?$")
SERVER_START_S = 60
FEW_VIEWS = 3
"""Shown beside one view where the bundle recommends one."""
MAX_PATHS = 5000
"""In one command, whose length is limited."""
MARK = ".pawserve-demo"


class DemoError(RuntimeError):
    """A step failed; the message has its command."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train, export, serve, predict, label and show statistics.")
    parser.add_argument(
        "--out", type=types.path, required=True, help="folder to write; the folder of an earlier demo is replaced"
    )
    parser.add_argument("--data", type=types.path, help="your images: train/CLASS/*, valid/CLASS/* (drawings)")
    parser.add_argument("--keep", action="store_true", help="keep the server running at the end, until Ctrl-C")
    options = parser.parse_args(arguments)
    try:
        demo(options.out, options.data, keep=options.keep)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demo(out: Path, data: Path | None, *, keep: bool) -> None:
    """Run every step below `out`, and print the last line: what came of it, as JSON."""
    begin = time.monotonic()
    empty(out)
    if data is None:
        data = out / "drawings"
        step("Draw 400 cats and dogs, so that nothing has to be downloaded.")
        run("training", "sample", "--out", data)
    step("Fine-tune a network that was trained on ImageNet: train a new head on its activations.")
    run(
        *("training", "fit", "--data", data, "--run", out / "run", "--cache", out / "cache"),
        *("--arch", "tf_efficientnet_lite0"),
    )
    step("Export to ONNX, check that the files predict the same as the trained network, and build an engine for GPUs.")
    run(
        *("export", "bundle", "--run", out / "run", "--models", out / "models", "--name", "pets"),
        *("--precisions", "fp32", "fp16", "--engines", "rtx"),
    )
    run("export", "inspect", out / "models" / "pets" / "1")
    step("Serve the model over gRPC and HTTP on free ports of this machine.")
    server, address, url = start_server(out)
    try:
        facts = use_server(address, out)
        step("Ask over HTTP.")
        ask_with_curl(url, next(iter(validation_labels(out))))
        step("Results to look at:")
        for name in ("run/report.html", "run/plots/confusion.png", "confusion.png", "models/pets/1/bundle.html"):
            console.print(f"  {out / name}", markup=False)
        facts["engine"] = describe_engine(out / "models" / "pets" / "1")
        facts["page"] = url
        result = json.dumps({**facts, "seconds": round(time.monotonic() - begin, 1)})
        if keep:
            with suppress(KeyboardInterrupt):
                step(f"The page of the server: {url} (Ctrl-C stops the server)")
                print(result, flush=True)
                server.wait()
        else:
            print(result, flush=True)
            step("The server stops now. To try its page, keep it running: make demo KEEP=1")
    finally:
        stop_server(server)


def ask_with_curl(url: str, image: Path) -> None:
    """Print and run the request; where there is no curl, only print it."""
    command = ["curl", "--silent", "--show-error", "--fail", "--data-binary", f"@{image}", f"{url}/v1/classify"]
    console.print(f"$ {shlex.join(command)}", style="cyan", markup=False)
    if shutil.which("curl") is None:
        console.print("curl is not installed on this machine.")
        return
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode != 0:
        raise DemoError(f"this command failed with exit code {finished.returncode}: {shlex.join(command)}")
    answer = json.loads(finished.stdout)
    del answer["results"][0]["prediction"]["token"]  # longer than the rest
    console.print(json.dumps(answer), markup=False)


def describe_engine(bundle: Path) -> dict[str, Any]:
    """The engine of TensorRT for RTX in the bundle: where it is, its size, and how long its build took."""
    (engine,) = json.loads((bundle / "model.json").read_text(encoding="utf-8"))["engines"]
    path, seconds = bundle / engine["file"], engine["build"]["seconds"]
    console.print(
        f"  {path}: an engine for GPUs of compute capability {', '.join(engine['compute_capabilities'])}, "
        f"{engine['bytes'] / 1e6:.1f} MB, built in {seconds} s",
        markup=False,
    )
    return {"file": str(path), "bytes": engine["bytes"], "build_seconds": seconds}


def use_server(address: str, out: Path) -> dict[str, Any]:
    """Predict, label and show statistics with the commands."""
    labels = validation_labels(out)
    server = ("--server", address)
    step("Classify a few images.")
    run("serving", "predict", *list(labels)[:: max(1, len(labels) // 4)][:4], *server)
    recommended = json.loads((out / "models" / "pets" / "1" / "model.json").read_text())["recommended_views"]
    views = recommended if recommended > 1 else FEW_VIEWS
    ways = {
        "one view": ("--views", "1"),
        f"{views} views": ("--views", str(views)),
        "adaptive": ("--views", str(views), "--adaptive"),
    }
    recorded = "one view" if recommended == 1 else f"{views} views"
    rows: list[dict[str, str]] = []
    results: list[tuple[str, dict[str, Any]]] = []
    for way, options in ways.items():
        step(
            f"Classify all {len(labels):,} validation images, {way}"
            + (", and record their labels." if way == recorded else ".")
        )
        found: list[tuple[str, dict[str, Any]]] = []
        for given, paths in calls(labels, recording=way == recorded):
            answer = run("serving", "predict", *paths, *server, *options, *given, "--json", capture=True)
            found += zip((labels[path] for path in paths), json.loads(answer)["results"], strict=True)
        rows.append(test_time_row(way, found))
        results = found if way == recorded else results
    step(f"Compare one view with test-time augmentation (the bundle recommends views: {recommended}).")
    print_table(("", "correct", "log loss", "views an image"), [tuple(row.values()) for row in rows])
    step("Change a label and change it back; each prediction has a token for that.")
    label, first = results[0]
    other = next(name for name in labels.values() if name != label)
    run("serving", "label", first["token"], other, *server)
    run("serving", "label", first["token"], label, *server)
    step("Show how accurate the model is.")
    run("serving", "stats", *server, "--plot", out / "confusion.png")
    statistics = json.loads(run("serving", "stats", *server, "--json", capture=True))["models"][0]
    return {
        "accuracy": statistics["accuracy"]["value"],
        "served": statistics["predictions"],
        "labelled": statistics["labels"],
        "confusion_matrix": statistics["confusion_matrix"],
        "recommended_views": recommended,
        "test_time": rows,
    }


def calls(labels: Mapping[Path, str], *, recording: bool) -> Iterator[tuple[Sequence[str], list[Path]]]:
    """The options and images of each call of `predict`.

    A call records one label. Otherwise the order is random, since a class at a time would count as drift.
    """
    mixed = random.Random(0).sample(list(labels), len(labels))
    for label in dict.fromkeys(labels.values()) if recording else [None]:
        paths = [path for path in mixed if label in (None, labels[path])]
        for start in range(0, len(paths), MAX_PATHS):
            yield ("--label", label) if label else (), paths[start : start + MAX_PATHS]


def test_time_row(way: str, results: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Correct predictions, log loss (mean negative log likelihood, nats) and the mean number of views, as text."""
    correct, loss, views = 0, 0.0, 0
    for label, result in results:
        classes = result["classes"]
        correct += classes[0]["label"] == label
        loss -= math.log(max(next(each["probability"] for each in classes if each["label"] == label), 1e-12))
        views += result["views"]
    n = len(results)
    return {
        "way": way,
        "correct": f"{100 * correct / n:.2f}% ({correct:,}/{n:,})",
        "log_loss": f"{loss / n:.4f}",
        "views": f"{views / n:.2f}",
    }


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def validation_labels(out: Path) -> dict[Path, str]:
    """The validation images of the run with their labels."""
    facts = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
    lines = (out / "run" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    folder = Path(facts["data"]["path"])
    return {folder / image["path"]: facts["classes"][image["label"]] for image in map(json.loads, lines)}


def step(explanation: str) -> None:
    console.print(f"\n[bold]{explanation}[/bold]")


def run(package: str, *arguments: object, capture: bool = False) -> str:
    """Print and run `python -m package arguments…`; returns its standard output if `capture` is set."""
    command = ["python", "-m", package, *map(str, arguments)]
    shown = shlex.join(command)
    console.print(f"$ {shown if len(shown) < 300 else shown[:280] + ' …'}", style="cyan", markup=False)
    finished = subprocess.run(
        [sys.executable, *command[1:]], stdout=subprocess.PIPE if capture else sys.stderr, text=True, check=False
    )
    if finished.returncode != 0:
        raise DemoError(f"this command failed with exit code {finished.returncode}: {shown[:500]}")
    return finished.stdout or ""


def start_server(out: Path, *options: object) -> tuple[subprocess.Popen[str], str, str]:
    """Start a server on free ports and wait until it is ready; returns its process, its address and its URL."""
    listen = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    arguments = ("serve", "--models", out / "models", *listen, "--state", out / "state", *options)
    command = ["python", "-m", "serving", *map(str, arguments)]
    console.print(f"$ {shlex.join(command)} &", style="cyan", markup=False)
    server = subprocess.Popen([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), True)
    for line in server.stdout:
        console.print(line.rstrip(), markup=False)
        if match := READY.search(line.rstrip()):
            return server, match[1], match[2]
    raise DemoError(f"the server did not start: exit code {server.wait(SERVER_START_S)}")


def stop_server(server: subprocess.Popen[str]) -> None:
    """Stop the server after the requests in flight."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    if server.wait(timeout=60) != 0:
        raise DemoError(f"the server stopped with exit code {server.returncode}")


def empty(out: Path) -> None:
    """Create an empty folder. Only a folder of an earlier demo is removed."""
    if out.exists():
        if not (out / MARK).exists():
            raise DemoError(f"{out} exists and is not the folder of an earlier demo; move it, or give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()


if __name__ == "__main__":
    sys.exit(main())
