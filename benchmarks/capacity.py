"""How many replicas a load needs: fit a replica's costs, simulate any number of them, check that against real servers.

    python -m benchmarks.capacity fit --bundle MODELS/NAME/VERSION --photos DIR --out replica.json
    python -m benchmarks.capacity simulate --model replica.json --replicas 4 --rate 500
    python -m benchmarks.capacity check --bundle MODELS/NAME/VERSION --photos DIR --replicas 2
    python -m benchmarks.capacity fleet --model replica.json

`fit` and `check` need two CPUs on which nothing else runs. docs/scaling.md says what the model knows and what not.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.capacity_check import FIT_S, check
from benchmarks.capacity_clients import BALANCES, poisson, simulate
from benchmarks.capacity_fit import Fitting
from benchmarks.capacity_fleet import ASSUMPTIONS, fleets, needs, waits
from benchmarks.capacity_model import ReplicaModel, load, to_json
from benchmarks.capacity_page import check_page, fleet_page
from benchmarks.capacity_probe import Probes
from benchmarks.capacity_servers import pinned_server, two_cpus
from benchmarks.serving.throughput import RESULTS, cpu_name
from serving.bundle.manifest import BundleError, open_bundle
from serving.engine.onnx import choose_precision

PHOTOS = 200
LOADS = (0.3, 0.5, 0.7, 0.85)


def main(given: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked."""
    arguments = _parser().parse_args(given)
    run: Callable[[argparse.Namespace], dict[str, Any]] = arguments.run
    try:
        print(json.dumps(run(arguments), indent=2))
    except (ValueError, BundleError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a replica's costs, and keep them."""
    bundle, photos = open_bundle(arguments.bundle), _photos(arguments.photos)
    server_cpu, load_cpu = two_cpus()
    with ExitStack() as stack:
        stack.enter_context(Probes(bundle, (server_cpu, load_cpu)))
        server = stack.enter_context(pinned_server(bundle, server_cpu))
        fitting = Fitting(bundle, photos, [server], [load_cpu], FIT_S)
        for _ in range(arguments.rounds):
            fitting.measure()
    model = fitting.result().model
    model.save(arguments.out)
    return _said(model)


def _simulate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict what clients see."""
    model = load(arguments.model)
    for name in ("cpus", "workers", "instances", "max_batch_size", "max_rows"):
        if (value := getattr(arguments, name)) is not None:
            model = replace(model, **{name: value})
    arrivals = poisson(
        model,
        rate=arguments.rate,
        seconds=arguments.seconds,
        clients=arguments.clients,
        seed=arguments.seed,
        pictures=arguments.pictures,
        views=arguments.views,
    )
    summary = simulate(model, arrivals, replicas=arguments.replicas, balance=arguments.balance, seed=arguments.seed)
    capacity = arguments.replicas * model.capacity(arguments.pictures, arguments.views)
    return {**asdict(summary), "capacity_requests_per_s": capacity, "load": arguments.rate / capacity}


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hold predictions against real servers, and write the result page."""
    bundle, photos = open_bundle(arguments.bundle), _photos(arguments.photos)
    fitted, rows = check(
        bundle,
        photos,
        replicas=arguments.replicas,
        loads=arguments.loads,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    results = {
        "what": f"capacity, {arguments.replicas} replica{'s' if arguments.replicas > 1 else ''}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.capacity check --bundle MODELS/NAME/VERSION --photos PHOTOS "
        f"--replicas {arguments.replicas} --rounds {arguments.rounds} --seconds {arguments.seconds:g} "
        f"--seed {arguments.seed}",
        "machine": {"cpu": cpu_name(), "python": platform.python_version()},
        "network": f"{bundle.manifest.arch} in {choose_precision(bundle.manifest)}",
        "model": to_json(fitted.model),
        "client": asdict(fitted.client),
        "loads": rows,
    }
    _write(f"capacity-{arguments.replicas}", results, check_page(results))
    return {"loads": rows}


def _fleet(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what 10, 100 and 1,000 GPUs need, under assumptions, and write the result page."""
    model = load(arguments.model)
    results = {
        "what": "capacity of fleets",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.capacity fleet --model RESULTS --gpus {arguments.gpus} "
        f"--seconds {arguments.seconds:g}",
        "assumptions": ASSUMPTIONS,
        "needs": [asdict(need) for need in needs(model)],
        "fleets": fleets(model, arguments.labels_per_s),
        "waits": list(waits(model, gpus=arguments.gpus, seconds=arguments.seconds, seed=arguments.seed)),
        "labels_per_s": arguments.labels_per_s,
        "simulated_gpus": arguments.gpus,
    }
    _write("capacity-fleet", results, fleet_page(results))
    return results


def _write(name: str, results: dict[str, Any], page: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results['date'][:10]}-{name}"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text(page)


def _said(model: ReplicaModel) -> dict[str, Any]:
    return {**to_json(model), "limits_requests_per_s": model.limits()}


def _photos(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        raise ValueError(f"there are no .jpg files in {folder}; name a folder of photos with --photos")
    return paths[:: max(1, len(paths) // PHOTOS)][:PHOTOS]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], dict[str, Any]]) -> Any:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added.add_argument

    for name, run in (("fit", _fit), ("check", _check)):
        add = command(name, run)
        add("--bundle", type=Path, required=True, help="MODELS/NAME/VERSION")
        add("--photos", type=Path, required=True, help="a folder of JPEGs")
        if name == "fit":
            add("--out", type=Path, required=True, help="the JSON file to write")
            add("--rounds", type=_positive(int), default=3, help="how often everything is measured (3)")
        else:
            add("--replicas", type=int, choices=(1, 2), default=1, help="each on a CPU of its own (1)")
            add("--loads", type=_positive(float), nargs="+", default=LOADS, help="shares of the capacity (%(default)s)")
            add("--rounds", type=_positive(int), default=7, help="of each load (7)")
            add("--seconds", type=_positive(float), default=1.5, help="each round of the heaviest load (1.5)")
            add("--seed", type=int, default=0, help="of the times at which requests are due (0)")
    add = command("simulate", _simulate)
    add("--model", type=Path, required=True, help="what `fit` wrote, or a result of `check`")
    add("--replicas", type=_positive(int), default=1, help="servers (1)")
    add("--rate", type=_positive(float), required=True, help="requests a second, to all of them")
    add("--clients", type=_positive(int), default=100, help="from which they come, each with its share (100)")
    add("--balance", choices=BALANCES, default="round_robin", help="how each chooses a replica (round_robin)")
    add("--pictures", type=_positive(int), default=1, help="in a request (1)")
    add("--views", type=_positive(int), default=1, help="of each picture (1)")
    add("--seconds", type=_positive(float), default=20.0, help="of requests (20)")
    add("--seed", type=int, default=0, help="of the times at which requests are due (0)")
    for name in ("cpus", "workers", "instances", "max_batch_size", "max_rows"):
        add(f"--{name.replace('_', '-')}", type=_positive(int), help="instead of the model's")
    add = command("fleet", _fleet)
    add("--model", type=Path, required=True, help="what `fit` wrote, or a result of `check`")
    add("--labels-per-s", type=_positive(float), required=True, help="what the statistics' database takes")
    add("--gpus", type=_positive(int), default=10, help="how many are simulated, for the waits (10)")
    add("--seconds", type=_positive(float), default=0.5, help="of requests, for each of the waits (0.5)")
    add("--seed", type=int, default=0, help="of the times at which requests are due (0)")
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
