"""Exported networks on this CPU: time of the export, sizes, parity and images per second of CPU time.

    python -m benchmarks.export --photos DIR [--run RUN]

Networks are measured in turns on one thread, in images per second of CPU time, so that other work on the machine
changes little. They have random weights, since speed does not depend on a weight's value.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import absolute_path, circumstances, heading, make_parser, table, write_results
from benchmarks.rounds import measure_in_turns
from export.calibrate import choose_images, list_folder, measure_ranges
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.quantize import quantize
from export.inference import load_views
from serving.bundle.manifest import open_bundle
from serving.engine.onnx import load_graph
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone, head_width

LIBRARIES = ("onnx", "onnxruntime", "torch", "timm")
ARCHS = ("tf_efficientnet_lite0", "resnet34")
BATCHES = (1, 8)
CALIBRATION_IMAGES = 16


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "photos", rounds=5, seconds=0.6)
    parser.add_argument("--run", type=absolute_path, help="a finished run, to measure export bundle on too")
    parser.add_argument("--archs", nargs="+", default=list(ARCHS), help="(%(default)s)")
    arguments = parser.parse_args()
    results = circumstances("export", LIBRARIES)
    results["load_before"] = os.getloadavg()[0]
    results["bundle"] = measure_bundle(arguments.run) if arguments.run else None
    results["networks"] = {
        arch: measure_network(arch, arguments.photos, arguments.rounds, arguments.seconds) for arch in arguments.archs
    }
    results["load_after"] = os.getloadavg()[0]
    write_results(results, to_markdown(results))


def measure_bundle(run: Path) -> dict[str, Any]:
    """`export bundle` with all precisions, as a user runs it, and its files."""
    with tempfile.TemporaryDirectory() as models:
        command = [sys.executable, "-m", "export", "bundle", "--run", str(run), "--models", models, "--name", "bench"]
        command += ["--precisions", "fp32", "fp16", "int8", "int8-trt"]
        began = time.monotonic()
        subprocess.run(command, check=True, timeout=900)
        seconds = time.monotonic() - began
        manifest = open_bundle(Path(models, "bench", "1")).manifest
    return {
        "seconds": round(seconds, 1),
        "files": {
            artifact.file: {
                "bytes": artifact.bytes,
                **artifact.parity,
                "float_layers": [layer["layer"] for layer in artifact.quantization.get("float_layers", [])],
            }
            for artifact in manifest.artifacts
        },
    }


def measure_network(arch: str, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """fp32 and INT8 of one backbone with random weights, on images of a folder."""
    torch.manual_seed(0)
    backbone = describe_backbone(arch)
    crop = backbone.preprocess.crop
    body = Body(backbone)
    features = count_features(body, crop)
    classifier = Classifier(body, Head(features, 2, width=head_width(body, features, 2))).eval()
    fp32 = to_onnx(DeployedModel(classifier, 1.0).eval(), crop)
    views_NHWC = load_views(choose_images(list_folder(folder), CALIBRATION_IMAGES), backbone.preprocess)
    int8 = quantize(fp32, measure_ranges(fp32, views_NHWC), "onnxruntime")
    graphs = {"fp32": load_graph(fp32), "int8": load_graph(int8)}
    result: dict[str, Any] = {"weights": "random", "fp32_bytes": len(fp32), "int8_bytes": len(int8)}
    for batch in BATCHES:
        calls = {name: partial(compute, views_NHWC[:batch]) for name, compute in graphs.items()}
        ways = {name: partial(measure_rate, call, seconds) for name, call in calls.items()}
        for call in calls.values():
            call()
        (found,) = measure_in_turns(rounds, [batch], ways).values()
        ratio = statistics.median(a / b for a, b in zip(found["int8"], found["fp32"], strict=True))
        result[f"batch {batch}"] = {
            "images_per_cpu_second": {name: round(statistics.median(values), 1) for name, values in found.items()},
            "int8_over_fp32": round(ratio, 2),
        }
    return result


def measure_rate(call: Callable[[], Any], seconds: float, images: int) -> float:
    """Images per CPU second of a call that computes so many images, over so many seconds of CPU time."""
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        call()
        done += images
    return done / (time.process_time() - began)


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    load = f"Load average {results['load_before']:.1f} before and {results['load_after']:.1f} after."
    page = heading("Export: sizes, parity and speed", results, load)
    if bundle := results["bundle"]:
        rows = [
            (
                name,
                f"{file['bytes'] / 1e6:.1f}",
                f"{file['correct']} of {file['photos']} (trained: {file['trained_correct']})",
                f"{100 * file['agreement']:.2f}%",
                f"{file['max_abs_diff']:.1e}",
                ", ".join(file["float_layers"]) or "none",
            )
            for name, file in bundle["files"].items()
        ]
        head = ("file", "MB", "correct", "agreement", "max |Δp|", "layers in float32")
        page += [f"`export bundle` with all precisions: {bundle['seconds']:.0f} s.", table(head, rows)]
    speeds = []
    for arch, network in results["networks"].items():
        for batch in BATCHES:
            found = network[f"batch {batch}"]
            rates = found["images_per_cpu_second"]
            speeds.append((arch, batch, rates["fp32"], rates["int8"], found["int8_over_fp32"]))
    return [
        *page,
        "Images per second of CPU time, ONNX Runtime on one thread, random weights; ratios are medians over rounds.",
        table(("network", "batch", "fp32", "INT8", "INT8 / fp32"), speeds),
    ]


if __name__ == "__main__":
    main()
