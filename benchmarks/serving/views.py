"""Test-time augmentation in the server: what views cost, and what they change on labelled images.

    python -m benchmarks.serving.views --models models --photos photos/valid

Rates: images a second with V views in one request, adaptive, and with V concurrent requests of one view each for the
same image, which decode it V times; all ways in turns, on one server for each precision. Accuracy: every image below
`--photos`, in folders by class, with one view, three, five, and adaptive.
"""

import asyncio
import itertools
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    ANY_PORT,
    SERVING_LIBRARIES,
    call_in_process,
    circumstances,
    heading,
    images_of,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.calls import Connection, SeveralTimes, open_connections
from benchmarks.serving.load import IMAGES, WARM_UP_S, closed_loop
from serving.bundle.folder import find_bundles
from serving.client import Client, Prediction

VIEWS = (1, 3, 5)


@dataclass(frozen=True)
class Way:
    """A way to classify an image."""

    views: int
    adaptive: bool = False
    requests: int = 1
    """Concurrent requests of so many views each."""


def ways_for(adaptive_views: int) -> dict[str, Way]:
    """By name."""
    return {
        **{f"{views} view{'s' * (views > 1)}": Way(views) for views in VIEWS},
        f"adaptive, {adaptive_views} views": Way(adaptive_views, adaptive=True),
        **{f"{views} requests of one view": Way(1, requests=views) for views in VIEWS if views > 1},
    }


def measure_rate(address: str, photos: Path, way: Way, clients: int, seconds: float) -> float:
    """Images a second; call it in a process of its own."""
    from serving.pb.pawserve.v1 import classifier_pb2 as pb

    requests = [
        pb.ClassifyRequest(
            images=[pb.ImageInput(content=image)], views=way.views, adaptive=way.adaptive
        ).SerializeToString()
        for image in images_of(photos, IMAGES)
    ]

    async def run() -> float:
        connections = await open_connections("pawserve", address, clients)
        several: list[Connection] = [SeveralTimes(connection, way.requests) for connection in connections]
        try:
            await closed_loop(several, requests, WARM_UP_S)
            return (await closed_loop(several, requests, seconds))["images_per_s"]
        finally:
            await connections[0].close()

    return asyncio.run(run())


def measure_accuracy(address: str, labelled: Sequence[tuple[Path, str]], way: Way) -> dict[str, float]:
    """Images, errors, log loss (mean negative log likelihood, nats) and mean views of what the server answers."""
    losses, errors, views = [], 0, 0
    with Client(address) as client:
        contents = (path.read_bytes() for path, _ in labelled)
        for answer in client.classify_many(contents, views=way.views, adaptive=way.adaptive):
            label = labelled[answer.index][1]
            if not isinstance(answer.result, Prediction):
                raise RuntimeError(f"{labelled[answer.index][0]}: {answer.result}")
            probabilities = dict(answer.result.classes)
            losses.append(-np.log(max(probabilities[label], 1e-12)))
            errors += max(probabilities, key=probabilities.__getitem__) != label
            views += answer.result.views
    n = len(losses)
    return {"images": n, "errors": errors, "log_loss": float(np.mean(losses)), "views": views / n}


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", clients=[1, 16], rounds=3, seconds=3.0)
    parser.add_argument("--skip-rates", action="store_true", help="measure the accuracy alone")
    arguments = parser.parse_args()
    (bundle,) = find_bundles(arguments.models, [])
    manifest = bundle.manifest
    labelled = [
        (path, name)
        for name in manifest.classes
        for path in sorted((arguments.photos / name).iterdir())
        if path.is_file()
    ]
    ways = ways_for(manifest.adaptive_views)
    results = circumstances("views", SERVING_LIBRARIES) | {"rounds": arguments.rounds, "precisions": {}}
    for precision in dict.fromkeys(artifact.precision for artifact in manifest.artifacts):
        with tempfile.TemporaryDirectory() as state:
            options = ("--models", arguments.models, "--state", state, "--listen", ANY_PORT, "--precision", precision)
            with running("serving", "serve", *options) as server:
                accuracy = {
                    name: measure_accuracy(server.address, labelled, way)
                    for name, way in ways.items()
                    if way.requests == 1
                }
                rates: dict[str, list[float]] = {}
                rounds = 0 if arguments.skip_rates else arguments.rounds
                for _, clients, (name, way) in itertools.product(range(rounds), arguments.clients, ways.items()):
                    rate = call_in_process(
                        measure_rate, server.address, arguments.photos, way, clients, arguments.seconds
                    )
                    rates.setdefault(f"{name}; {clients}", []).append(round(rate, 1))
        results["precisions"][precision] = {"accuracy": accuracy, "images_per_s": rates}
        write_results(results, to_markdown(results, list(ways), arguments.clients))


def to_markdown(results: Mapping[str, Any], ways: Sequence[str], clients: Sequence[int]) -> list[str]:
    """The lines of the result page."""
    lines = heading("Views in the server", dict(results), "Images a second: medians, all ways in turns.")
    for precision, found in results["precisions"].items():
        rows = []
        one = found["accuracy"]["1 view"]
        for name in ways:
            measured = found["accuracy"].get(name)
            facts = ("", "", "", "")
            if measured:
                change = 100 * (measured["log_loss"] / one["log_loss"] - 1)
                facts = (
                    f"{measured['errors']} of {measured['images']:,}",
                    f"{measured['log_loss']:.4f}",
                    f"{change:+.1f}%",
                    f"{measured['views']:.2f}",
                )
            medians = [
                statistics.median(rates) if (rates := found["images_per_s"].get(f"{name}; {count}")) else None
                for count in clients
            ]
            rows.append((name, *facts, *("" if median is None else f"{median:.0f}" for median in medians)))
        head = (
            "",
            "errors",
            "log loss",
            "change",
            "views an image",
            *(f"images/s, {count} clients" for count in clients),
        )
        lines += [f"## {precision}", "", *table(head, rows), ""]
    return lines


if __name__ == "__main__":
    main()
