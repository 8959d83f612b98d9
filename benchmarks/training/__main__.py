"""Training measured on your images: engines for activations, an epoch of the whole network, and all of `fit`.

    python -m benchmarks.training --data photos [--parts engines activations training] [--fastai PYTHON]

`engines` is the pretrained body in every engine, `activations` what `fit` makes of it, `training` an epoch of the whole
network, each beside the bare engine or loop on random images. `--fastai` names a Python that has fastai 2.8, timm and
the lite0 weights; its `fine_tune(1)` then runs on the same images and the same backbone. Speeds are in images a second.
The day's results keep the parts that were measured before.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import circumstances, heading, make_parser, results_of_today, table, write_results
from benchmarks.training.engines import measure_engines
from benchmarks.training.epoch import measure_epochs
from benchmarks.training.fit import compare_with_fastai, measure_activations
from serving.cli.options import path

PARTS = ("engines", "activations", "training", "fastai")
LIBRARIES = ("torch", "timm", "onnxruntime")


def main() -> None:
    """Parse the arguments, measure the chosen parts, and write the result page."""
    parser = make_parser(__doc__, "data", seconds=5.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--fastai", type=path, help="a Python with fastai 2.8; without it that part is left out")
    parser.add_argument("--size", type=int, default=224, help="pixels, for the part training (224)")
    arguments = parser.parse_args()
    data = arguments.data
    results = results_of_today(circumstances("training", LIBRARIES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "engines" in arguments.parts:
            results["engines"] = measure_engines(folder, arguments.seconds)
        if "activations" in arguments.parts:
            results["activations"] = measure_activations(data, folder / "activations", arguments.seconds)
        if "training" in arguments.parts:
            results["training"] = measure_epochs(data, arguments.size)
        if "fastai" in arguments.parts and arguments.fastai:
            results["against fastai"] = compare_with_fastai(data, folder / "fastai", arguments.fastai)
    write_results(results, to_markdown(results))


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the parts that were measured, one section each."""
    facts = "tf_efficientnet_lite0 with pretrained weights; speeds in images a second. Each part is a run of its own."
    page = heading("Training", results, facts)
    if part := results.get("engines"):
        page += ["## Engines: the body on random images of 224 pixels", table(("", ""), part.items())]
    if part := results.get("activations"):
        rows = {name: value for name, value in part.items() if name != "fit"}
        page += ["## Activations: `fit` with an empty cache, beside ONNX Runtime alone", table(("", ""), rows.items())]
    if part := results.get("training"):
        page += [
            "## An epoch of the whole network, beside the bare torch loop",
            "Cold is a first epoch: images read, decoded and augmented. Warm is a later one, with decoded images kept.",
            table(("", ""), part.items()),
        ]
    if part := results.get("against fastai"):
        page += _beside_fastai(part)
    return page


def _beside_fastai(part: Mapping[str, Any]) -> list[str]:
    ours, theirs, paired = part["fit"], part["fastai"], part["paired"]
    rows = [
        (name, f"{each['seconds']:.1f}", each["correct"])
        for name, each in (("`fit`, empty cache", ours), ("fastai", theirs))
    ]
    return [
        "## `fit` beside fastai's `fine_tune(1)`, from the start of the process to predictions",
        table(("", "seconds", "correct"), rows),
        f"{part['times as fast']:.1f} times as fast; {paired['gained']} images correct that fastai has incorrect, "
        f"{paired['lost']} the other way round, McNemar p = {paired['p_value']:.1g}.",
    ]


if __name__ == "__main__":
    main()
