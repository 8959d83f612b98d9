"""Test-time augmentation in the server: what views cost, and what they change on labelled images.

    python -m benchmarks.serving.views --models models --photos photos/valid

Rates: images a second with V views in one request, adaptive, and with V concurrent requests of one view each for the
same image, which decode it V times; all ways in turns, on one server for each precision. Accuracy: every image below
`--photos`, in folders by class, with one view, three, five, and adaptive.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import circumstances, heading, make_parser, table, write_results
from benchmarks.processes import pawserve
from benchmarks.rounds import measure_in_turns
from benchmarks.serving.load import run_load
from serving.bundle.folder import find_bundles
from serving.client import Client, Prediction

VIEWS = (1, 3, 5)


@dataclass(frozen=True)
class Way:
    """A way to classify an image."""

    views: int
    adaptive: bool = False
    at_once: int = 1
    """Concurrent requests of so many views each."""


def ways_for(adaptive_views: int) -> dict[str, Way]:
    """The ways by name."""
    return {
        **{f"{views} view{'s' * (views > 1)}": Way(views) for views in VIEWS},
        f"adaptive, {adaptive_views} views": Way(adaptive_views, adaptive=True),
        **{f"{views} requests of one view": Way(1, at_once=views) for views in VIEWS if views > 1},
    }


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
    results = circumstances("views") | {"rounds": arguments.rounds, "precisions": {}}
    for precision in dict.fromkeys(artifact.precision for artifact in manifest.artifacts):
        with pawserve(arguments.models, "--precision", precision) as server:

            def measure_rate(way: Way, clients: int, address: str = server.address) -> float:
                load = {"clients": clients, "seconds": arguments.seconds, **asdict(way)}
                rate: float = run_load("pawserve", address, arguments.photos, **load)["images_per_s"]
                return round(rate, 1)

            accuracy = {
                name: measure_accuracy(server.address, labelled, way) for name, way in ways.items() if way.at_once == 1
            }
            rounds = 0 if arguments.skip_rates else arguments.rounds
            measured = {name: partial(measure_rate, way) for name, way in ways.items()}
            rates = measure_in_turns(rounds, arguments.clients, measured)
        results["precisions"][precision] = {"accuracy": accuracy, "images_per_s": rates}
        write_results(results, to_markdown(results))


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    page = heading("Views in the server", results, "Images a second: medians, all ways in turns.")
    for precision, found in results["precisions"].items():
        accuracy, rates = found["accuracy"], found["images_per_s"]
        rows = []
        for name in next(iter(rates.values())):
            facts = [""] * 4
            if one := accuracy.get(name):
                change = one["log_loss"] / accuracy["1 view"]["log_loss"] - 1
                errors = f"{one['errors']} of {one['images']:,}"
                facts = [errors, f"{one['log_loss']:.4f}", f"{change:+.1%}", f"{one['views']:.2f}"]
            medians = (f"{statistics.median(row[name]):.0f}" if row[name] else "" for row in rates.values())
            rows.append((name, *facts, *medians))
        columns = (f"images/s, {clients} clients" for clients in rates)
        head = ("", "errors", "log loss", "change", "views an image", *columns)
        page += [f"## {precision}", table(head, rows)]
    return page


if __name__ == "__main__":
    main()
