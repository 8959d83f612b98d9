"""The results of the capacity model as Markdown tables."""

from math import ceil

from benchmarks.capacity.model import UTILIZATION, Costs, Gpu, gpu_host, limits, replicas_needed
from benchmarks.common import table

FLEETS = (10, 100, 1000)
NETWORK_CARD_GBIT_PER_S = 25.0
LABELS_PER_S = 29_849.0
"""Labels a second that SQLite stored on two cores in batches of 500 (benchmarks/results/2026-11-23-feedback.md)."""


def render(costs: Costs, gpu: Gpu, *, images_per_s: float, cpus: int, images: int, views: int) -> str:
    """The page: replicas on CPUs for a load, then what GPUs of the assumed class need."""
    of_one = limits(costs, cpus=cpus, images=images, views=views)
    capacity = min(of_one.values())
    replicas = replicas_needed(images_per_s, capacity)
    load = f"{images_per_s:,.0f} images/s, {images} in a request, {views} view{'s' if views > 1 else ''} each"
    lines = [
        f"One replica on {cpus} CPU{'s' if cpus > 1 else ''}:",
        "",
        *table(("limit", "images/s"), ((part, f"{most:,.0f}") for part, most in of_one.items())),
        "",
        f"Replicas for {load}: {replicas} at {images_per_s / replicas / capacity:.0%} of their capacity.",
        "",
        f"One GPU that computes all the time ({gpu.served_rows_per_s():,.0f} rows/s in batches of {gpu.batch}):",
        "",
        *_hosts(costs, gpu),
        "",
        f"GPUs used for {UTILIZATION:.0%} of the time, one image in a request:",
        "",
        *_fleets(costs, gpu),
    ]
    return "\n".join(lines)


def _hosts(costs: Costs, gpu: Gpu) -> list[str]:
    head = ("images in a request", "CPU cores", "of them decoding", "event loop images/s", "processes", "Gbit/s")
    rows = []
    for images in (1, 8, 64):
        host = gpu_host(costs, gpu, images=images)
        loop = f"{host.loop_images_per_s:,.0f}"
        rows.append((images, host.cpus, f"{host.decode_cpus:.1f}", loop, host.processes, f"{host.gbit_per_s:.1f}"))
    return table(head, rows)


def _fleets(costs: Costs, gpu: Gpu) -> list[str]:
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
