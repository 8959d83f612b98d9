"""How soon drift raises an alarm on real images, how often an alarm is false, and what a prediction pays.

    python -m benchmarks.serving.drift --models MODELS --photos PHOTOS

A real server classifies the validation images, as they are and heavily blurred. Windows are then fed with its
predictions: of the validation images in random order; and after 200 of these, of one class only, or of blurred images
only. False alarms are simulated: the reference and 10,000 predictions are drawn from the same distribution, with a look
after each prediction.
"""

import io
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.common import circumstances, heading, make_parser, table, write_results
from benchmarks.processes import pawserve
from serving.bundle.folder import find_bundles
from serving.bundle.validation import ValidationPredictions
from serving.client import Client, NamedImage, Prediction
from serving.models.drift import WINDOW, DriftWindow

BLUR = 0.04
"""Radius of the Gaussian blur, as a part of the image's shorter side."""
PREDICTIONS = 10_000
IMAGES = 1_000
"""Validation images of a simulated reference."""
COST_ROUNDS = 200_000

Predicted = tuple[int, float]
"""Class index and confidence."""


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", rounds=200)
    parser.add_argument("--simulations", type=int, default=300, help="of 10,000 predictions each (300)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    arguments = parser.parse_args()
    manifest = find_bundles(arguments.models, [])[-1].manifest
    reference = manifest.validation
    if reference is None:
        raise SystemExit(f"{manifest.resource} has no reference; export it again")
    files = sorted(path for path in (arguments.photos / "valid").glob("*/*") if path.is_file())
    with pawserve(arguments.models) as server, Client(server.address) as client:
        usual = classify(client, ((path, path.read_bytes()) for path in files), manifest.classes)
        blurred = classify(client, ((path, blur(path)) for path in files), manifest.classes)
    rng = random.Random(arguments.seed)
    results = circumstances("drift", ()) | {
        "validation_images": len(files),
        "false_alarms_in_random_order": sum(
            first_alarm(reference, [], rng.sample([*usual.values()], len(usual))) is not None
            for _ in range(arguments.rounds)
        ),
    }
    kinds = {
        f"only {name}": [each for path, each in usual.items() if path.parent.name == name]
        for name in sorted({path.parent.name for path in files})
    }
    rows = []
    for name, drifted in (kinds | {"only blurred images": [*blurred.values()]}).items():
        found = [
            first_alarm(
                reference, rng.sample([*usual.values()], WINDOW), rng.sample(drifted, min(WINDOW, len(drifted)))
            )
            for _ in range(arguments.rounds)
        ]
        seen = [each for each in found if each is not None]
        results[name] = {"alarms": len(seen), "median": statistics.median(seen), "latest": max(seen)}
        rows.append((name, f"{len(seen)} of {len(found)}", f"{statistics.median(seen):.0f}", max(seen)))
    confident = [f"{100 * np.mean([each > 0.9 for _, each in part.values()]):.1f}%" for part in (usual, blurred)]
    results["simulated_false_alarms"] = simulate(reference, arguments.simulations, arguments.seed)
    add_ns, read_us = costs(reference, [*usual.values()])
    results |= {"add_ns": add_ns, "read_us": read_us}
    facts = (
        f"{manifest.resource}; windows of {WINDOW} predictions; {arguments.rounds} random orders of {len(files):,} "
        f"validation images. Confidence above 0.9: {confident[0]} of the images, {confident[1]} of the blurred ones."
    )
    page = [
        *heading("Drift", results, facts),
        table(("after 200 validation images", "alarms", "median request", "latest request"), rows),
        f"- In random order: {results['false_alarms_in_random_order']} of {arguments.rounds} orders raised an alarm.\n"
        f"- Simulated without drift: {results['simulated_false_alarms']} of {arguments.simulations} sequences of "
        f"{PREDICTIONS:,} predictions raised an alarm, with a look after each.\n"
        f"- A prediction pays {add_ns:.0f} ns; a comparison takes {read_us:.0f} µs.",
    ]
    write_results(results, page)


def blur(path: Path) -> bytes:
    """An image that is heavily blurred, as a JPEG."""
    with Image.open(path) as image:
        soft = image.convert("RGB").filter(ImageFilter.GaussianBlur(BLUR * min(image.size)))
    buffer = io.BytesIO()
    soft.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def classify(client: Client, images: Iterable[tuple[Path, bytes]], classes: Sequence[str]) -> dict[Path, Predicted]:
    """The predictions of a server."""
    paths: list[Path] = []

    def contents() -> Iterable[NamedImage]:
        for path, content in images:
            paths.append(path)
            yield NamedImage(content, path.name)

    found = {}
    for each in client.classify_many(contents(), top_k=1):
        assert isinstance(each.result, Prediction), each
        label, confidence = each.result.classes[0]
        found[paths[each.index]] = (classes.index(label), confidence)
    return found


def first_alarm(
    reference: ValidationPredictions, before: Sequence[Predicted], predictions: Sequence[Predicted]
) -> int | None:
    """Number of predictions after `before` until an alarm is raised; None if none is."""
    window = DriftWindow(reference)
    for each in before:
        window.add(*each)
    for number, each in enumerate(predictions, 1):
        window.add(*each)
        if window.read().alarm:
            return number
    return None


def simulate(reference: ValidationPredictions, simulations: int, seed: int) -> int:
    """How many sequences of predictions without drift raise an alarm; each has a reference of its own."""
    rng = np.random.default_rng(seed)
    shares = [np.array(counts) / reference.images for counts in (reference.class_counts, reference.confidence_counts)]
    middles = (np.array([0.0, *reference.confidence_edges]) + np.array([*reference.confidence_edges, 1.0])) / 2
    alarms = 0
    for _ in range(simulations):
        drawn = [rng.multinomial(IMAGES, share).tolist() for share in shares]
        made = ValidationPredictions(tuple(drawn[0]), reference.confidence_edges, tuple(drawn[1]))
        classes, bins = (rng.choice(len(share), PREDICTIONS, p=share) for share in shares)
        alarms += first_alarm(made, [], [*zip(classes.tolist(), middles[bins].tolist(), strict=True)]) is not None
    return alarms


def costs(reference: ValidationPredictions, predictions: Sequence[Predicted]) -> tuple[float, float]:
    """CPU time: nanoseconds for each prediction, and microseconds for each comparison."""
    window = DriftWindow(reference)
    began = time.process_time_ns()
    for number in range(COST_ROUNDS):
        window.add(*predictions[number % len(predictions)])
    added = time.process_time_ns()
    reads = COST_ROUNDS // 100
    for _ in range(reads):
        window.read()
    return (added - began) / COST_ROUNDS, (time.process_time_ns() - added) / reads / 1000


if __name__ == "__main__":
    main()
