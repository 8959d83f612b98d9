"""Memory and time of the search for near duplicates, on random activations of ever more images.

    python -m benchmarks.training.duplicates [--counts 50000 100000 200000]

Each number of images has a process of its own. Its activations are in a file, as `fit` keeps them.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from benchmarks.common import circumstances, heading, make_parser, table, write_results
from benchmarks.processes import call_in_process, memory_mib
from training.checks.duplicates import NEIGHBOURS, nearest
from training.checks.projection import BLOCK, project
from training.data.images import LabelledImage
from training.features.activations import Activations

WIDTH = 1024
"""Numbers of an image's activations."""
SAMPLE_S = 0.05
"""Time between two samples of the memory."""
FIGURES = ("base MiB", "projection MiB", "projection s", "search MiB", "search s", "CPU s")


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 100_000, 200_000], help="numbers of images")
    arguments = parser.parse_args()
    results = circumstances("training-duplicates", ("torch", "numpy"))
    results["counts"] = {str(count): call_in_process(measure, count) for count in arguments.counts}
    write_results(results, to_markdown(results))


def measure(count: int) -> dict[str, float]:
    """The figures of one number of images; see `FIGURES`."""
    with tempfile.TemporaryDirectory() as folder:
        rows = np.memmap(Path(folder) / "activations", np.float32, "w+", shape=(count, WIDTH))
        random = np.random.default_rng(0)
        for start in range(0, count, BLOCK):
            rows[start : start + BLOCK] = random.standard_normal((min(BLOCK, count - start), WIDTH), np.float32)
        images = [LabelledImage(Path("image.jpg"), 0)] * count
        activations = Activations(images, [], 0, 0, rows, np.arange(count)[:, None])
        base_mib, began, began_cpu = anonymous_mib(), time.monotonic(), time.process_time()
        with most_memory() as projection:
            projected_ND = project([activations])
        projected = time.monotonic()
        with most_memory() as search:
            nearest(projected_ND, NEIGHBOURS, lambda done, total: None)
        now, cpu_s = time.monotonic(), time.process_time() - began_cpu
        figures = (base_mib, projection[0], projected - began, search[0], now - projected, cpu_s)
        return dict(zip(FIGURES, figures, strict=True))


def anonymous_mib() -> float:
    """Memory of this process that is not a file's, in MiB: what the operating system cannot take back."""
    return memory_mib(os.getpid(), "RssAnon")


@contextmanager
def most_memory() -> Iterator[list[float]]:
    """Gives a list whose item is the most memory that was seen so far, in MiB."""
    most, ended = [anonymous_mib()], Event()

    def sample_memory() -> None:
        while not ended.wait(SAMPLE_S):
            most[0] = max(most[0], anonymous_mib())

    thread = Thread(target=sample_memory)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def to_markdown(results: dict[str, Any]) -> list[str]:
    """A row for each number of images."""
    rows = [
        (f"{int(count):,}", *(f"{each[name]:,.0f}" for name in FIGURES)) for count, each in results["counts"].items()
    ]
    return [
        *heading("Search for near duplicates", results),
        f"{WIDTH:,} random numbers an image. MiB of memory that is not a file's: `base` before, the others at most.",
        table(("images", *FIGURES), rows),
    ]


if __name__ == "__main__":
    main()
