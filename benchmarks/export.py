"""What export costs and gains on this CPU: `python -m benchmarks.export --photos DIR [--run RUN]`.

Networks are measured in turns on one thread, in images per second of CPU time: what else runs on the machine then
changes little. They have random weights, since a rate depends on no weight's value.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.calibrate import choose_images, list_folder, measure_ranges
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.quantize import quantize
from export.inference import load_views, open_session
from serving.bundle.manifest import open_bundle
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone, head_width
from training.networks.onnx import OPSET
from training.versions import versions

ROUNDS, SECONDS = 5, 0.6


def rates(calls: dict[str, Callable[[], Any]], images: int) -> dict[str, list[float]]:
    """Images per CPU second of each call in each round; the calls take turns, so that a busy moment meets them all."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began, done = time.process_time(), 0
            while time.process_time() - began < SECONDS:
                call()
                done += images
            found[name].append(done / (time.process_time() - began))
    return found


def ratio(found: dict[str, list[float]], above: str, below: str) -> float:
    """Median over the rounds of one rate over another."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


def bare_graph(classifier: Classifier, crop: int) -> bytes:
    """The network alone: float32 `[N, 3, H, W]`, already normalised, to logits."""

    class Bare(torch.nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            maps = self.network(x_NCHW)
            return self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))

    bare = Bare()
    bare.network, bare.head = classifier.body.network, classifier.head
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            bare.eval(),
            (torch.zeros(2, 3, crop, crop),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=["x"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def measure_network(arch: str, folder: Path) -> dict[str, Any]:
    """fp32, INT8 and the bare network of one backbone with random weights, on photos of a folder."""
    torch.manual_seed(0)
    backbone = describe_backbone(arch)
    crop = backbone.preprocess.crop
    body = Body(backbone)
    features = count_features(body, crop)
    classifier = Classifier(body, Head(features, 2, width=head_width(body, features, 2))).eval()
    fp32 = to_onnx(DeployedModel(classifier, 1.0).eval(), crop)
    views = load_views(choose_images(list_folder(folder), 16), backbone.preprocess)
    int8 = quantize(fp32, measure_ranges(fp32, views), "onnxruntime")
    bare, full, small = open_session(bare_graph(classifier, crop)), open_session(fp32), open_session(int8)
    result: dict[str, Any] = {"weights": "random", "fp32_bytes": len(fp32), "int8_bytes": len(int8)}
    for batch in (1, 8):
        images = views[:batch]
        x = np.zeros((batch, 3, crop, crop), np.float32) + 0.1
        found = rates(
            {
                "fp32": lambda images=images: full.run(None, {"images": images}),
                "int8": lambda images=images: small.run(None, {"images": images}),
                "bare fp32": lambda x=x: bare.run(None, {"x": x}),
            },
            batch,
        )
        result[f"batch {batch}"] = {
            "images_per_cpu_second": {name: round(statistics.median(values), 1) for name, values in found.items()},
            "int8_over_fp32": round(ratio(found, "int8", "fp32"), 2),
            "preprocessing_cost": round(1 - ratio(found, "fp32", "bare fp32"), 3),
        }
    return result


def measure_bundle(run: Path) -> dict[str, Any]:
    """`export bundle` with all precisions, as a user runs it, and what came out."""
    with tempfile.TemporaryDirectory() as models:
        command = [sys.executable, "-m", "export", "bundle", "--run", str(run), "--models", models, "--name", "bench"]
        command += ["--precisions", "fp32", "fp16", "int8", "int8-trt"]
        began = time.monotonic()
        finished = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        seconds = time.monotonic() - began
        if finished.returncode != 0:
            raise SystemExit(f"export bundle failed:\n{finished.stderr}")
        manifest = open_bundle(Path(models, "bench", "1")).manifest
    return {
        "seconds": round(seconds, 1),
        "files": {
            artifact.file: {
                "bytes": artifact.bytes,
                **{name: artifact.parity[name] for name in ("photos", "correct", "trained_correct", "agreement")},
                "max_abs_diff": artifact.parity["max_abs_diff"],
                "second_runtime": artifact.parity["second_runtime"],
                "float_layers": [layer["layer"] for layer in artifact.quantization.get("float_layers", [])],
            }
            for artifact in manifest.artifacts
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates, sizes and parity of exported graphs on this CPU.")
    parser.add_argument("--run", type=Path, help="a finished run, to measure export bundle on too")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos, for realistic activations")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {
        "command": "python -m benchmarks.export --photos PHOTOS" + " --run RUN" * bool(options.run),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{threads} CPUs, {platform.machine()}",
        "load_before": os.getloadavg()[0],
        "versions": versions(),
        "bundle": measure_bundle(options.run) if options.run else None,
        "networks": {},
    }
    for arch in ("tf_efficientnet_lite0", "resnet34"):
        result["networks"][arch] = measure_network(arch, options.photos)
    result["load_after"] = os.getloadavg()[0]
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{datetime.now(UTC):%Y-%m-%d}-export"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(stem.with_suffix(".md").read_text(encoding="utf-8"))


def page(result: dict[str, Any]) -> str:
    """The result as a page to read."""
    bundle = result["bundle"]
    lines = [
        "# Export: sizes, parity and rates",
        "",
        f"{result['when']}, {result['machine']}, load average {result['load_before']:.1f} before and "
        f"{result['load_after']:.1f} after. `{result['command']}`",
        "",
    ]
    if bundle:
        lines += [
            f"`export bundle` with all precisions: {bundle['seconds']:.0f} s.",
            "",
            "| file | MB | right | same answers | max abs diff | left in float |",
            "|---|---|---|---|---|---|",
        ]
    for name, file in (bundle["files"] if bundle else {}).items():
        lines.append(
            f"| {name} | {file['bytes'] / 1e6:.1f} | {file['correct']} of {file['photos']} (trained: "
            f"{file['trained_correct']}) | {100 * file['agreement']:.2f}% | {file['max_abs_diff']:.1e} | "
            f"{', '.join(file['float_layers']) or 'none'} |"
        )
    lines += [
        "",
        "Images per second of CPU time, ONNX Runtime on one thread, random weights; ratios are medians over rounds.",
        "",
        "| network | batch | fp32 | INT8 | INT8 / fp32 | cast, transpose, normalisation, softmax |",
        "|---|---|---|---|---|---|",
    ]
    for arch, network in result["networks"].items():
        for batch in (1, 8):
            found = network[f"batch {batch}"]
            per_second = found["images_per_cpu_second"]
            lines.append(
                f"| {arch} | {batch} | {per_second['fp32']} | {per_second['int8']} | {found['int8_over_fp32']} | "
                f"{100 * found['preprocessing_cost']:.1f}% |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
