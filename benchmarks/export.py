"""Exported networks on this CPU: time of the export, sizes, parity and images per second of CPU time.

    python -m benchmarks.export --photos DIR [--run RUN]

Networks are measured in turns on one thread, in images per second of CPU time, so that other work on the machine
changes little. They have random weights, since speed does not depend on a weight's value.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import RESULTS, circumstances, heading, table, write_results
from export.calibrate import choose_images, list_folder, measure_ranges
from export.graphs.onnx import DeployedModel, to_onnx
from export.graphs.quantize import quantize
from export.inference import load_views, open_session
from serving.bundle.manifest import open_bundle
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone, head_width
from training.networks.onnx import OPSET

LIBRARIES = ("onnx", "onnxruntime", "torch", "timm")
ARCHS = ("tf_efficientnet_lite0", "resnet34")
BATCHES = (1, 8)
CALIBRATION_IMAGES = 16


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run, to measure export bundle on too")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of images, for realistic activations")
    parser.add_argument("--archs", nargs="+", default=list(ARCHS), help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many are reported (5)")
    parser.add_argument("--seconds", type=float, default=0.6, help="of CPU time for each measurement (0.6)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="(%(default)s)")
    arguments = parser.parse_args()
    command = "python -m benchmarks.export --photos PHOTOS" + " --run RUN" * bool(arguments.run)
    results = circumstances("export", command, LIBRARIES)
    results["load_before"] = os.getloadavg()[0]
    results["bundle"] = measure_bundle(arguments.run) if arguments.run else None
    results["networks"] = {
        arch: measure_network(arch, arguments.photos, arguments.rounds, arguments.seconds) for arch in arguments.archs
    }
    results["load_after"] = os.getloadavg()[0]
    write_results(results, to_markdown(results), arguments.out)


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
    """fp32, INT8 and the bare network of one backbone with random weights, on images of a folder."""
    torch.manual_seed(0)
    backbone = describe_backbone(arch)
    crop = backbone.preprocess.crop
    body = Body(backbone)
    features = count_features(body, crop)
    classifier = Classifier(body, Head(features, 2, width=head_width(body, features, 2))).eval()
    fp32 = to_onnx(DeployedModel(classifier, 1.0).eval(), crop)
    views_NHWC = load_views(choose_images(list_folder(folder), CALIBRATION_IMAGES), backbone.preprocess)
    int8 = quantize(fp32, measure_ranges(fp32, views_NHWC), "onnxruntime")
    sessions = {
        "fp32": (open_session(fp32), "images"),
        "int8": (open_session(int8), "images"),
        "bare fp32": (open_session(bare_graph(classifier, crop)), "x"),
    }
    result: dict[str, Any] = {"weights": "random", "fp32_bytes": len(fp32), "int8_bytes": len(int8)}
    for batch in BATCHES:
        inputs = {"images": views_NHWC[:batch], "x": np.full((batch, 3, crop, crop), 0.1, np.float32)}
        calls = {name: partial(session.run, None, {x: inputs[x]}) for name, (session, x) in sessions.items()}
        found = measure_rates(calls, batch, rounds, seconds)
        result[f"batch {batch}"] = {
            "images_per_cpu_second": {name: round(statistics.median(values), 1) for name, values in found.items()},
            "int8_over_fp32": round(_ratio(found, "int8", "fp32"), 2),
            "preprocessing_cost": round(1 - _ratio(found, "fp32", "bare fp32"), 3),
        }
    return result


def measure_rates(
    calls: Mapping[str, Callable[[], Any]], images: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Images per CPU second of each call in each round, in turns, so that a busy moment affects all calls.

    Args:
        images: how many one call computes.
        seconds: of CPU time for each call in each round.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began, done = time.process_time(), 0
            while time.process_time() - began < seconds:
                call()
                done += images
            found[name].append(done / (time.process_time() - began))
    return found


def _ratio(found: dict[str, list[float]], above: str, below: str) -> float:
    """Median over the rounds of one rate over another."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


class _BareNetwork(nn.Module):
    """The network alone: float32 `[N, 3, H, W]`, normalised already, to logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network, self.head = classifier.body.network, classifier.head

    def forward(self, x_NCHW: Tensor) -> Tensor:
        maps = self.network(x_NCHW)
        logits: Tensor = self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))
        return logits


def bare_graph(classifier: Classifier, crop: int) -> bytes:
    """The ONNX graph of the network alone, to compare with the exported one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            _BareNetwork(classifier).eval(),
            (torch.zeros(2, 3, crop, crop),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=["x"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def to_markdown(results: dict[str, Any]) -> str:
    """The result page."""
    load = f"Load average {results['load_before']:.1f} before and {results['load_after']:.1f} after."
    lines = heading("Export: sizes, parity and speed", results, load)
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
        lines += [f"`export bundle` with all precisions: {bundle['seconds']:.0f} s.", "", *table(head, rows), ""]
    rows = []
    for arch, network in results["networks"].items():
        for batch in BATCHES:
            found = network[f"batch {batch}"]
            rates, cost = found["images_per_cpu_second"], f"{100 * found['preprocessing_cost']:.1f}%"
            rows.append((arch, str(batch), f"{rates['fp32']}", f"{rates['int8']}", f"{found['int8_over_fp32']}", cost))
    head = ("network", "batch", "fp32", "INT8", "INT8 / fp32", "cast, transpose, normalisation, softmax")
    lines += [
        "Images per second of CPU time, ONNX Runtime on one thread, random weights; ratios are medians over rounds.",
        "",
        *table(head, rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
