"""The page of a GPU check."""

from collections.abc import Iterator
from typing import Any

from benchmarks.common import table

TITLES = {
    "host": "Host",
    "head": "Training: the head on activations, tf_efficientnet_lite0",
    "network": "Training: the whole resnet34 at 224 pixels, beside the bare loop",
    "fastai": "Training: `fit` beside fastai's fine_tune(1)",
    "bundle": "Export",
    "engines": "TensorRT engines",
    "parity": "Parity of every engine with the CPU's answers",
    "serving": "Serving",
}


def to_page(results: dict[str, Any]) -> str:
    """One section for each part."""
    page = [f"# GPU check, {results['date'][:16].replace('T', ' ')} UTC"]
    rows = [
        (part, found["status"], f"{found['seconds']:.0f}", _one_line(found.get("reason", "")))
        for part, found in results["parts"].items()
    ]
    page.append(table(("part", "status", "seconds", "reason"), rows))
    for part, found in results["parts"].items():
        if result := found.get("result"):
            page += [f"## {TITLES[part]}", *_section(result)]
    return "\n\n".join(page) + "\n"


def _section(result: dict[str, Any]) -> Iterator[str]:
    """A table of a result's values; a list of equal dictionaries becomes a table of its own."""
    simple = [(name, _one_line(_shown(value))) for name, value in result.items() if not _is_rows(value)]
    if simple:
        yield table(("", ""), simple)
    for value in result.values():
        if _is_rows(value):
            names = list(dict.fromkeys(name for row in value for name in row))
            body = ([_one_line(_shown(row.get(name, ""))) for name in names] for row in value)
            yield table(names, body)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
