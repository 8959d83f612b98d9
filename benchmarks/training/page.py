"""The result page of benchmarks.training."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import heading, table


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the parts that were measured, one section each."""
    facts = "tf_efficientnet_lite0 with pretrained weights; speeds in images a second. Each part is a run of its own."
    lines = heading("Training", results, facts)
    if part := results.get("engines"):
        lines += ["## Engines: the body on random images of 224 pixels", "", *_rows(part)]
    if part := results.get("activations"):
        rows = {name: value for name, value in part.items() if name != "fit"}
        lines += ["## Activations: `fit` with an empty cache, beside ONNX Runtime alone", "", *_rows(rows)]
    if part := results.get("training"):
        lines += [
            "## An epoch of the whole network, beside the bare torch loop",
            "",
            "Cold is a first epoch: images read, decoded and augmented. Warm is a later one, with decoded images kept.",
            "",
            *_rows(part),
        ]
    if part := results.get("against fastai"):
        lines += _beside_fastai(part)
    return lines


def _rows(part: Mapping[str, Any]) -> list[str]:
    return [*table(("", ""), part.items()), ""]


def _beside_fastai(part: Mapping[str, Any]) -> list[str]:
    ours, theirs, paired = part["fit"], part["fastai"], part["paired"]
    rows = [
        (name, f"{each['seconds']:.1f}", each["correct"])
        for name, each in (("`fit`, empty cache", ours), ("fastai", theirs))
    ]
    return [
        "## `fit` beside fastai's `fine_tune(1)`, from the start of the process to predictions",
        "",
        *table(("", "seconds", "correct"), rows),
        "",
        f"{part['times as fast']:.1f} times as fast; {paired['gained']} images correct that fastai has incorrect, "
        f"{paired['lost']} the other way round, McNemar p = {paired['p_value']:.1g}.",
    ]
