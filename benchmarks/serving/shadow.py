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
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import circumstances, heading, make_parser, table, write_results
from benchmarks.processes import ANY_PORT, RunningServer, cpu_s, pawserve
from benchmarks.rounds import measure_in_turns, median_ratio, medians
from benchmarks.serving.load import run_load
from serving.bundle.folder import open_newest
from serving.bundle.manifest import MANIFEST

LOAD = 0.5
"""Part of the capacity."""
SATURATING_CLIENTS = 32
DRAIN_S = 600.0
WITHOUT, WITH = "without", "with"


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", rounds=7, seconds=6.0)
    arguments = parser.parse_args()
    results = circumstances("shadow")
    results |= {"rounds": arguments.rounds} | measure(arguments)
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Half of the capacity, and all rounds of both servers: see `run`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shadow = write_models(arguments.models, folder / "models")
        servers = {}
        for name, choice in ((WITHOUT, ("--model", f"{shadow.partition('/')[0]}/1")), (WITH, ("--shadow", shadow))):
            options = ("--http", "off", "--metrics", ANY_PORT, *choice)
            servers[name] = stack.enter_context(pawserve(folder / "models", *options))
        metrics = servers[WITH].metrics_url
        saturated = run(servers[WITHOUT], arguments, metrics, clients=SATURATING_CLIENTS)
        rate = LOAD * saturated["images_per_s"]

        def measure_one(server: RunningServer, rate: float) -> dict[str, float]:
            half = run(server, arguments, metrics, rate=rate)
            full = run(server, arguments, metrics, clients=SATURATING_CLIENTS)
            return (
                {key: half[key] for key in ("p50_ms", "p99_ms", "shadowed")}
                | {key: full[key] for key in ("images_per_s", "cpu_ms")}
                | {"shadowed_at_saturation": full["shadowed_at_once"]}
            )

        ways = {name: partial(measure_one, server) for name, server in servers.items()}
        (rounds,) = measure_in_turns(arguments.rounds, [rate], ways).values()
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


def run(server: RunningServer, arguments: argparse.Namespace, metrics_url: str, **load: float) -> dict[str, float]:
    """Load a server, and wait until no image waits for the shadow version.

    Returns:
        What the load measures, with the server's `cpu_ms` for each request, and the parts of the images that the shadow
        version computed: in all (`shadowed`), and until the last answer (`shadowed_at_once`).
    """
    cpu, before = cpu_s(server.pid), computed(metrics_url)
    found: dict[str, float] = run_load("pawserve", server.address, arguments.photos, seconds=arguments.seconds, **load)
    requests = found["images"] + found["warm_up_images"]
    found["cpu_ms"] = 1000 * (cpu_s(server.pid) - cpu) / requests
    found["shadowed_at_once"] = (computed(metrics_url) - before) / requests
    drain(metrics_url)
    found["shadowed"] = (computed(metrics_url) - before) / requests
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
    """The paragraphs of the result page."""
    measured = results["measured"]
    rows = []
    for key, digits in (("p50_ms", 2), ("p99_ms", 2), ("images_per_s", 1), ("cpu_ms", 2)):
        figures = (f"{medians(measured[name])[key]:.{digits}f}" for name in (WITHOUT, WITH))
        rows.append((key, *figures, f"{median_ratio(measured[WITH], measured[WITHOUT], key):.3f}"))
    found = medians(measured[WITH])
    return [
        *heading("A shadow version", results, f"Medians of {results['rounds']} rounds."),
        f"Latencies at {results['rate']:.0f} requests a second, {LOAD:.0%} of the capacity; `images_per_s` with "
        f"{SATURATING_CLIENTS} clients, and `cpu_ms` of the server for each of their images. The shadow version "
        f"computed {found['shadowed']:.0%} of the images at {LOAD:.0%}, and {found['shadowed_at_saturation']:.0%} "
        "during the saturation.",
        table(("figure", "without", "with a shadow version", "median of the ratios"), rows),
    ]


if __name__ == "__main__":
    main()
