"""Training measured on your photos: engines for activations, an epoch of the whole network, and fit as a whole.

    python -m benchmarks.training --data photos [--parts engines activations training] [--fastai PYTHON]

`engines` is the pretrained body in every engine, `activations` what `fit` makes of it, `training` an epoch of the whole
network, each beside the bare engine or loop on random pictures. `--fastai` names a Python that has fastai 2.8, timm and
the lite0 weights; its `fine_tune(1)` then runs on the same photos and the same backbone. Figures go to
benchmarks/results as JSON and as a page; rates are photos a second. Parts measured one after another on a day join one
page.
"""

import argparse
import datetime
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training.engines import engines, pretrained_body
from benchmarks.training.epoch import whole_network
from benchmarks.training.fit import activations, against_fastai
from benchmarks.training.page import page
from serving.system.cpus import available_cpus
from training.versions import versions

PARTS = ("engines", "activations", "training", "fastai")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--fastai", type=Path, help="a Python with fastai 2.8; without it that part is left out")
    parser.add_argument("--size", type=int, default=224, help="pixels, of the part training")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    data = options.data.resolve()
    target = options.out / f"{datetime.date.today()}-training.json"
    figures: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    figures["machine"] = f"{available_cpus()} CPUs, {platform.processor() or platform.machine()}"
    figures["versions"] = versions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "engines" in options.parts:
            figures["engines"] = engines(pretrained_body(), 224, folder)
        if "activations" in options.parts:
            figures["activations"] = activations(data, folder / "activations")
        if "training" in options.parts:
            figures["training"] = whole_network(data, options.size)
        if "fastai" in options.parts and options.fastai:
            figures["against fastai"] = against_fastai(data, folder / "fastai", options.fastai)
    text = json.dumps(figures, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(page(figures, str(datetime.date.today())), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
