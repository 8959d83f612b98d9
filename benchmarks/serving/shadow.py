"""What a shadow version costs: answers of a server with one beside those of a server without.

    python -m benchmarks.serving.shadow --models models --photos photos/valid

The shadow version is a copy of the newest version of the only model, so it costs as much as the version that answers,
and it gets all images. Both servers run all the time and are measured in turns, in another order each round: at half of
the measured capacity, with requests at random times, and at saturation. A turn ends when no image waits for the shadow
version, so that it takes nothing from the next one.
"""

import argparse
import re
import shutil
import statistics
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ANY_PORT,
    SERVING_LIBRARIES,
    RunningServer,
    circumstances,
    heading,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.load import run_load
from serving.bundle.folder import open_newest
from serving.bundle.manifest import MANIFEST

LOAD = 0.5
"""Part of the capacity."""
SATURATING_CLIENTS = 32
DRAIN_S = 120.0
WITHOUT, WITH = "without", "with"


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", rounds=7, seconds=6.0)
    arguments = parser.parse_args()
    results = circumstances("shadow", SERVING_LIBRARIES)
    results |= {"rounds": arguments.rounds} | measure(arguments)
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The capacity, and all rounds of both servers: `p50_ms`, `p99_ms`, `images_per_s` at saturation, `shadowed`."""
    rounds: dict[str, list[dict[str, float]]] = {WITHOUT: [], WITH: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shadow = write_models(arguments.models, folder / "models")
        servers = {}
        for name, choice in ((WITHOUT, ("--model", f"{shadow.partition('/')[0]}/1")), (WITH, ("--shadow", shadow))):
            folders = ("--models", folder / "models", "--state", folder / name)
            addresses = ("--listen", ANY_PORT, "--http", "off", "--metrics", ANY_PORT)
            servers[name] = stack.enter_context(running("serving", "serve", *folders, *addresses, *choice))
        metrics = servers[WITH].metrics_url
        saturated = run(servers[WITHOUT], arguments, clients=SATURATING_CLIENTS)
        rate = LOAD * saturated["images_per_s"]
        for number in range(arguments.rounds):
            for name in (WITHOUT, WITH) if number % 2 else (WITH, WITHOUT):
                before = computed(metrics)
                row = run(servers[name], arguments, rate=rate)
                drain(metrics)
                shadowed = (computed(metrics) - before) / (row["images"] + row["warm_up_images"])
                full = run(servers[name], arguments, clients=SATURATING_CLIENTS)
                drain(metrics)
                rounds[name].append(
                    {
                        "p50_ms": row["p50_ms"],
                        "p99_ms": row["p99_ms"],
                        "shadowed": shadowed,
                        "images_per_s": full["images_per_s"],
                    }
                )
    return {"rate": rate, "measured": rounds}


def write_models(models: Path, folder: Path) -> str:
    """Copy the newest version of the only model as versions 1 and 2; return NAME/2."""
    (name,) = (path.name for path in models.iterdir() if path.is_dir())
    bundle = open_newest(models / name)
    for number in (1, 2):
        target = folder / name / str(number)
        shutil.copytree(bundle.folder, target)
        text = (target / MANIFEST).read_text(encoding="utf-8")
        (target / MANIFEST).write_text(
            re.sub(r'"version": \d+', f'"version": {number}', text, count=1), encoding="utf-8"
        )
    return f"{name}/2"


def run(server: RunningServer, arguments: argparse.Namespace, **load: float) -> dict[str, float]:
    """Load a server."""
    found: dict[str, float] = run_load("pawserve", server.address, arguments.photos, seconds=arguments.seconds, **load)
    return found


def computed(metrics_url: str) -> float:
    """Images that the shadow version has computed."""
    return scrape(metrics_url, r'pawserve_shadow_images_total\{.*result="ok".*\}')


def drain(metrics_url: str) -> None:
    """Wait until no image waits for the shadow version.

    Raises:
        TimeoutError: if one still does after DRAIN_S.
    """
    deadline = time.monotonic() + DRAIN_S
    while scrape(metrics_url, "pawserve_shadow_waiting_images"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"images still wait for the shadow version after {DRAIN_S:g} s")
        time.sleep(0.1)


def scrape(metrics_url: str, pattern: str) -> float:
    """The value of a metric; 0 if it is not there."""
    with urllib.request.urlopen(metrics_url, timeout=DRAIN_S) as answer:
        match = re.search(rf"^{pattern} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    measured = results["measured"]
    rows = []
    for key, digits in (("p50_ms", 2), ("p99_ms", 2), ("images_per_s", 1)):
        medians = [statistics.median(one[key] for one in measured[name]) for name in (WITHOUT, WITH)]
        pairs = zip(measured[WITH], measured[WITHOUT], strict=True)
        ratio = statistics.median(with_shadow[key] / without[key] for with_shadow, without in pairs)
        rows.append((key, *(f"{each:.{digits}f}" for each in medians), f"{ratio:.3f}"))
    shadowed = statistics.median(one["shadowed"] for one in measured[WITH])
    return [
        *heading("A shadow version", results, f"Medians of {results['rounds']} rounds."),
        f"Latencies at {results['rate']:.0f} requests a second, {LOAD:.0%} of the capacity; `images_per_s` with "
        f"{SATURATING_CLIENTS} clients. At {LOAD:.0%}, the shadow version computed {shadowed:.0%} of the images.",
        "",
        *table(("figure", "without", "with a shadow version", "median of the ratios"), rows),
    ]


if __name__ == "__main__":
    main()
