"""Figures of `benchmarks.training.__main__` in; the result page, Markdown, out."""

from collections.abc import Mapping
from typing import Any


def page(figures: Mapping[str, Any], date: str) -> str:
    """The parts that were measured, one section each."""
    installed = figures["versions"]
    named = ", ".join(f"{name} {installed[name]}" for name in ("python", "torch", "timm", "onnxruntime"))
    lines = [
        f"# Training, {date}",
        f"{figures['machine']}; {named}; tf_efficientnet_lite0 with pretrained weights; rates are photos a second.",
        "    python -m benchmarks.training --data PHOTOS --parts PART",
        "Each part is a run of its own; rounds that are compared take turns.",
    ]
    if part := figures.get("engines"):
        lines += ["## Engines: the body on random pictures of 224 pixels", _table(part)]
    if part := figures.get("activations"):
        rows = {name: value for name, value in part.items() if name != "fit"}
        lines += ["## Activations: `fit` with nothing cached, beside ONNX Runtime alone", _table(rows)]
    if part := figures.get("training"):
        lines += [
            "## An epoch of the whole network, beside the bare torch loop",
            "Cold is a first epoch: photos read, decoded and augmented. Warm is a later one, with decoded photos kept.",
            _table(part),
        ]
    if part := figures.get("against fastai"):
        lines += ["## `fit` beside fastai's `fine_tune(1)`, from process start to right answers", _against(part)]
    return "\n\n".join(lines) + "\n"


def _table(part: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in part.items())])


def _against(part: Mapping[str, Any]) -> str:
    ours, theirs, paired = part["fit"], part["fastai"], part["paired"]
    rows = [
        "| | seconds | right |",
        "|---|---|---|",
        f"| `fit`, nothing cached | {ours['seconds']:.1f} | {ours['correct']} |",
        f"| fastai | {theirs['seconds']:.1f} | {theirs['correct']} |",
    ]
    return "\n".join(rows) + (
        f"\n\n{part['times as fast']:.1f} times as fast; {paired['gained']} photos right that fastai has wrong, "
        f"{paired['lost']} the other way round, McNemar p = {paired['p_value']:.1g}."
    )
