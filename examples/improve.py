"""Improve a model with its labels, with the commands that a user would type: docs/improving.md.

    python -m examples.improve --photos PHOTOS --out DIR

Train on a part of the images, serve, label the others, and train again with the labels. The new version then
classifies the same images as the first, as its shadow; they are labelled, the versions are compared, and the new one is
promoted if the labels decide that it is better. The last line of standard output is one JSON document.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from examples.demo import DemoError, console, empty, run, start_server, step, stop_server
from serving.cli import options as types
from serving.client import Client, ClientError

LABELS_PER_REQUEST = 500
WAIT_S = 60.0
"""Limit for the server to follow a promotion."""
MAX_POLLS = 60
"""Seconds without a result of the shadow version, after which it has none left: on a busy host each takes a while."""
ARCH = ("--arch", "tf_efficientnet_lite0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop; 1 if a step failed."""
    parser = argparse.ArgumentParser(description="Train, serve, label, train again, compare and promote.")
    parser.add_argument("--photos", type=types.path, required=True, help="images: train/CLASS/*, valid/CLASS/*")
    parser.add_argument(
        "--out", type=types.path, required=True, help="folder to write; that of an earlier run is replaced"
    )
    parser.add_argument("--first", type=int, default=500, help="training images of each class for version 1 (500)")
    parser.add_argument("--later", type=int, default=500, help="images of each class that are labelled later (500)")
    parser.add_argument("--valid", type=int, default=500, help="validation images of each class (500)")
    parser.add_argument("--cache", type=types.path, help="for activations (that of fit)")
    options = parser.parse_args(arguments)
    try:
        improve(options)
    except (DemoError, ClientError) as error:
        print(f"improve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def improve(options: argparse.Namespace) -> None:
    """Run every step below `options.out`, and print the last line: what came of it, as JSON."""
    begin, out = time.monotonic(), options.out
    empty(out)
    labels = copy_images(options)
    cache = ("--cache", options.cache) if options.cache else ()
    fit = ("training", "fit", "--data", out / "images", *ARCH, *cache)

    step("Train on a part of the images, and export version 1.")
    run(*fit, "--run", out / "first")
    export(out, "first")

    step("Serve it, and classify images that come in later.")
    server, address, _ = start_server(out)
    try:
        run("serving", "predict", out / "camera", "--out", out / "predictions.csv", "--server", address)
        mistakes = record_labels(address, out / "predictions.csv", labels["camera"])
    finally:
        stop_server(server)

    step("Export the labels, train again with the labelled images, and export version 2.")
    run("serving", "export-labels", out / "labels.csv", "--state", out / "state")
    run(*fit, "--run", out / "second", "--labels", out / "labels.csv", "--images", out / "camera")
    export(out, "second")

    step("Serve version 1, with version 2 as its shadow, and label what they both classify.")
    server, address, _ = start_server(out, "--shadow", "pets/2")
    try:
        classify_at_half_load(address, out / "traffic", labels["traffic"])
        wait_for_pairs(address, len(labels["traffic"]))
        step("Compare the versions, and promote version 2 if the labels decide that it is better.")
        run("serving", "compare", "pets", 1, 2, "--server", address)
        comparison = json.loads(run("serving", "compare", "pets", 1, 2, "--json", "--server", address, capture=True))
        promoted = promote(out, address)
        if promoted:
            server.send_signal(signal.SIGHUP)  # or the server follows at its next look into the folder
            wait_until(lambda: primary_version(address, out) == "models/pets/versions/2", "version 2 to answer")
        answers = primary_version(address, out)
    finally:
        stop_server(server)
    first, second = (json.loads((out / name / "run.json").read_text(encoding="utf-8")) for name in ("first", "second"))
    facts = {
        "trained_on": [first["data"]["train"], second["data"]["train"]],
        "validation_accuracy": [each["metrics"]["accuracy"]["value"] for each in (first, second)],
        "labelled": len(labels["camera"]),
        "mistakes": mistakes,
        "added": second["data"]["labels"]["added"],
        "comparison": comparison,
        "promoted": promoted,
        "answers": answers,
    }
    print(json.dumps({**facts, "seconds": round(time.monotonic() - begin, 1)}), flush=True)


def copy_images(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Copy images into images/{train,valid}/CLASS, camera/ and traffic/; the class of each of the last two, by name."""
    rng, out = random.Random(0), options.out
    labels: dict[str, dict[str, str]] = {"camera": {}, "traffic": {}}
    for part in ("train", "valid"):
        for folder in sorted(path for path in (options.photos / part).iterdir() if path.is_dir()):
            files = sorted(path for path in folder.iterdir() if path.is_file())
            rng.shuffle(files)
            count = options.first if part == "train" else options.valid
            home = out / "images" / part / folder.name
            home.mkdir(parents=True)
            for path in files[:count]:
                shutil.copy(path, home)
            loose, chosen = (
                ("camera", files[count : count + options.later]) if part == "train" else ("traffic", files[:count])
            )
            for path in chosen:
                (out / loose).mkdir(exist_ok=True)
                name = f"{rng.getrandbits(48):012x}{path.suffix}"
                shutil.copy(path, out / loose / name)
                labels[loose][name] = folder.name
    return labels


def export(out: Path, name: str) -> None:
    """Export a run as the next version."""
    run("export", "bundle", "--run", out / name, "--models", out / "models", "--name", "pets", "--precisions", "fp32")


def record_labels(address: str, predictions: Path, labels: Mapping[str, str]) -> int:
    """Record the label of each row of predictions.csv, found by its reference; how many predictions were incorrect."""
    step(f"Record the labels of {predictions.name} by their tokens, as the page and `label` do.")
    with predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with Client(address) as client:
        for start in range(0, len(rows), LABELS_PER_REQUEST):
            group = rows[start : start + LABELS_PER_REQUEST]
            results = client.record_labels([(row["token"], labels[row["reference"]]) for row in group])
            if failed := [result for result in results if isinstance(result, ClientError)]:
                raise failed[0]
    mistakes = sum(1 for row in rows if row["label"] != labels[row["reference"]])
    console.print(f"{len(rows):,} labels recorded; {mistakes:,} predictions were incorrect")
    return mistakes


def classify_at_half_load(address: str, folder: Path, labels: Mapping[str, str]) -> None:
    """Classify and label one image after the other, each after a pause as long as the answer before took.

    A shadow version computes while the server has nothing else to do; images that it has no time for are dropped.
    """
    console.print(f"classifying and labelling {len(labels):,} images, one after the other")
    with Client(address) as client:
        for name, label in labels.items():
            began = time.monotonic()
            (result,) = client.classify([(folder / name).read_bytes()], references=[name]).results
            if isinstance(result, ClientError):
                raise result
            client.record_labels([(result.token, label)])
            time.sleep(time.monotonic() - began)


def wait_for_pairs(address: str, count: int) -> None:
    """Wait until the shadow version has classified all labelled images, or as many as it will."""
    seen, unchanged = -1, 0
    with Client(address) as client:
        while seen < count and unchanged < MAX_POLLS:
            time.sleep(1)
            statistics = client.statistics("models/pets/versions/2")
            now = sum(each.labels for each in statistics)
            unchanged = unchanged + 1 if now == seen else 0
            seen = now
    console.print(f"the shadow version has classified {seen:,} of the {count:,} labelled images")


def promote(out: Path, address: str) -> bool:
    """Promote version 2 if the labels decide that it is better; whether they do."""
    arguments = ("promote", "pets", "2", "--models", out / "models", "--if-better", "--server", address)
    try:
        run("serving", *arguments)
    except DemoError:
        console.print("version 1 stays: more labels are needed, or the versions are equally good")
        return False
    return True


def primary_version(address: str, out: Path) -> str:
    """The primary version of the model."""
    image = next((out / "traffic").iterdir()).read_bytes()
    with Client(address) as client:
        return client.classify([image], model="models/pets").model


def wait_until(happened: Callable[[], bool], what: str) -> None:
    """Wait until something has happened; raises DemoError if it does not."""
    end = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > end:
            raise DemoError(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
