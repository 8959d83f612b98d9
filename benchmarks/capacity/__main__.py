"""Print how many replicas a load needs, and what GPUs need beside them.

    python -m benchmarks.capacity --images-per-s 500 --cpus 1

The costs of one image were measured on one machine; the flags take those of yours. docs/scaling.md explains the
formulas.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from math import ceil

from benchmarks.capacity.model import UTILIZATION, Costs, Gpu, gpu_host, limits, replicas_needed
from benchmarks.common import table
from serving.cli.options import positive

FLEETS = (10, 100, 1000)
NETWORK_CARD_GBIT_PER_S = 25.0
LABELS_PER_S = 29_849.0
"""Labels a second that SQLite stored on two cores in batches of 500 (benchmarks/results/2026-11-23-feedback.md)."""


def main(given: Sequence[str]) -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-s", type=_positive, default=500.0, help="the load, of all clients together (500)")
    parser.add_argument("--cpus", type=positive, default=1, help="CPUs of a replica (1)")
    parser.add_argument("--images", type=positive, default=1, help="images in a request (1)")
    parser.add_argument("--views", type=positive, default=1, help="views of each image (1)")
    for field in dataclasses.fields(Costs):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=_positive, default=field.default, help="see docs/scaling.md (%(default)g)")
    arguments = parser.parse_args(given)
    costs = Costs(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Costs)})
    load = {name: getattr(arguments, name) for name in ("images_per_s", "cpus", "images", "views")}
    print(render(costs, Gpu(), **load))


def render(costs: Costs, gpu: Gpu, *, images_per_s: float, cpus: int, images: int, views: int) -> str:
    """The page: replicas on CPUs for a load, then what GPUs of the assumed class need."""
    of_one = limits(costs, cpus=cpus, images=images, views=views)
    capacity = min(of_one.values())
    replicas = replicas_needed(images_per_s, capacity)
    load = f"{images_per_s:,.0f} images/s, {images} in a request, {views} view{'s' if views > 1 else ''} each"
    page = (
        f"One replica on {cpus} CPU{'s' if cpus > 1 else ''}:",
        table(("limit", "images/s"), ((part, f"{most:,.0f}") for part, most in of_one.items())),
        f"Replicas for {load}: {replicas} at {images_per_s / replicas / capacity:.0%} of their capacity.",
        f"One GPU that computes all the time ({gpu.served_rows_per_s():,.0f} rows/s in batches of {gpu.batch}):",
        _hosts(costs, gpu),
        f"GPUs used for {UTILIZATION:.0%} of the time, one image in a request:",
        _fleets(costs, gpu),
    )
    return "\n\n".join(page)


def _hosts(costs: Costs, gpu: Gpu) -> str:
    head = ("images in a request", "CPU cores", "of them decoding", "event loop images/s", "processes", "Gbit/s")
    rows = []
    for images in (1, 8, 64):
        host = gpu_host(costs, gpu, images=images)
        loop = f"{host.loop_images_per_s:,.0f}"
        rows.append((images, host.cpus, f"{host.decode_cpus:.1f}", loop, host.processes, f"{host.gbit_per_s:.1f}"))
    return table(head, rows)


def _fleets(costs: Costs, gpu: Gpu) -> str:
    host = gpu_host(costs, gpu, images=1)
    head = ("GPUs", "images/s", "CPU cores", "processes", "Gbit/s", "25 Gbit/s cards", "labelled part at most")
    rows = []
    for gpus in FLEETS:
        images_per_s, gbit_per_s = (gpus * UTILIZATION * each for each in (host.images_per_s, host.gbit_per_s))
        rows.append(
            (
                f"{gpus:,}",
                f"{images_per_s:,.0f}",
                f"{ceil(gpus * UTILIZATION * host.cpus):,}",
                f"{gpus * ceil(UTILIZATION * host.processes):,}",
                f"{gbit_per_s:,.0f}",
                f"{ceil(gbit_per_s / (UTILIZATION * NETWORK_CARD_GBIT_PER_S)):,}",
                f"{min(1.0, LABELS_PER_S / images_per_s):.1%}",
            )
        )
    return table(head, rows)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
