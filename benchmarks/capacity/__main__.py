"""Print how many replicas a load needs, and what GPUs need beside them.

    python -m benchmarks.capacity --images-per-s 500 --cpus 1

The costs of one image were measured on one machine; the flags take those of yours. docs/scaling.md explains the
formulas.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from benchmarks.capacity.model import Costs, Gpu
from benchmarks.capacity.page import render


def main(given: Sequence[str]) -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-s", type=_positive, default=500.0, help="the load, of all clients together (500)")
    parser.add_argument("--cpus", type=_at_least_one, default=1, help="CPUs of a replica (1)")
    parser.add_argument("--images", type=_at_least_one, default=1, help="images in a request (1)")
    parser.add_argument("--views", type=_at_least_one, default=1, help="views of each image (1)")
    for field in dataclasses.fields(Costs):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=_positive, default=field.default, help="see docs/scaling.md (%(default)g)")
    arguments = parser.parse_args(given)
    costs = Costs(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Costs)})
    load = {name: getattr(arguments, name) for name in ("images_per_s", "cpus", "images", "views")}
    print(render(costs, Gpu(), **load))


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
