"""What benchmarks share: options, facts about the machine, images, result files and tables."""

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from serving.cli.options import path
from serving.system.cpus import available_cpus

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
SERVING_LIBRARIES = ("grpcio", "numpy", "onnxruntime", "protobuf", "simplejpeg")

_FOLDERS = {
    "models": "contains NAME/VERSION/model.json, of one NAME",
    "bundle": "MODELS/NAME/VERSION, with an INT8 graph",
    "photos": "a folder of JPEGs",
    "data": "images as `fit` reads them, in train/CLASS and valid/CLASS",
}
_NUMBERS: dict[str, dict[str, Any]] = {
    "clients": {"type": int, "nargs": "+", "help": "numbers of clients (%(default)s)"},
    "rounds": {"type": int, "help": "medians of so many are reported (%(default)s)"},
    "seconds": {"type": float, "help": "how long each measurement takes (%(default)s)"},
}


def make_parser(doc: str | None, *folders: str, **numbers: object) -> argparse.ArgumentParser:
    """A parser with options that several benchmarks have.

    Args:
        doc: the benchmark's docstring, for the help.
        folders: names of required options: models, bundle, photos or data.
        numbers: default values of the options clients, rounds and seconds.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in folders:
        parser.add_argument(f"--{name}", type=absolute_path, required=True, help=_FOLDERS[name])
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", default=default, **_NUMBERS[name])
    return parser


def absolute_path(text: str) -> Path:
    """The type of options that are paths: absolute, since processes of a benchmark run in the repository."""
    return path(text).resolve()


def cpu_name() -> str:
    """The processor as Linux names it."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return match[1] if match else platform.processor() or "an unknown processor"


def given_command() -> str:
    """The command line of this process; the option's name stands for a path with several parts."""
    spec = sys.modules["__main__"].__spec__
    words = ["python", "-m", spec.name.removesuffix(".__main__") if spec else sys.argv[0], *sys.argv[1:]]
    return " ".join(option[2:].upper() if "/" in word else word for option, word in pairwise(["", *words]))


def circumstances(what: str, libraries: Iterable[str] = SERVING_LIBRARIES) -> dict[str, Any]:
    """What was measured, when, by which command, and on which machine; the first fields of all results."""
    return {
        "what": what,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": given_command(),
        "machine": {"cpu": cpu_name(), "cpus": available_cpus(), "python": platform.python_version()},
        "versions": {name: version(name) for name in libraries},
    }


def heading(title: str, results: dict[str, Any], facts: str = "") -> list[str]:
    """The first paragraphs of a result page: title, circumstances and command.

    Args:
        facts: what else describes the measurement, a sentence or more.
    """
    machine = results["machine"]
    versions = "".join(f", {name} {number}" for name, number in results["versions"].items())
    return [
        f"# {title}, {results['date'][:10]}",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}{versions}. {facts}".rstrip(),
        f"    {results['command']}",
    ]


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    first, *others = (f"| {' | '.join(map(str, row))} |" for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def results_of_today(now: dict[str, Any]) -> dict[str, Any]:
    """The parts that were measured earlier on this day, with the circumstances of now."""
    path = _results_path(now, ".json")
    return (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | now


def write_results(results: dict[str, Any], paragraphs: Iterable[str]) -> None:
    """Write `DATE-WHAT.json` and, with the paragraphs of the page, `DATE-WHAT.md`; print the page."""
    page = "\n\n".join(paragraphs) + "\n"
    RESULTS.mkdir(exist_ok=True)
    _results_path(results, ".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _results_path(results, ".md").write_text(page, encoding="utf-8")
    print(page)


def _results_path(results: dict[str, Any], suffix: str) -> Path:
    return RESULTS / f"{results['date'][:10]}-{results['what']}{suffix}"


def images_of(folder: Path, count: int) -> list[bytes]:
    """The contents of at most so many JPEGs, taken evenly from all below a folder.

    Raises:
        ValueError: if there are none.
    """
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        raise ValueError(f"there are no .jpg files in {folder}; give a folder of images with --photos")
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]
