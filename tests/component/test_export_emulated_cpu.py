"""INT8 files agree on this host and on a CPU without VNNI, which qemu-user emulates."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.calibrate import measure_ranges
from export.graphs.quantize import quantize
from serving.bundle.manifest import OUTPUT_NAME, Runtime
from serving.engine.onnx import load_graph
from training.networks.onnx import export_graph

EMULATOR = shutil.which("qemu-x86_64")
ANSWERS = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {"images": np.load(sys.argv[2])})[0])
"""


class Positive(nn.Module):
    """A network whose weights are all large and positive, so that sums of two products exceed 16 bits in 8-bit INT8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)),
        )
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.abs_()
            self.layers[-1].weight[::2].neg_()

    def forward(self, images_NHWC: Tensor) -> Tensor:
        logits_NK: Tensor = self.layers((images_NHWC.permute(0, 3, 1, 2).float() - 1.0) / 255.0)
        return torch.softmax(logits_NK / 8, 1)


@pytest.mark.emulator
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64: apt-get install qemu-user")
@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_int8_answers_are_those_of_a_cpu_without_vnni(runtime: Runtime, tmp_path: Path) -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    fp32 = export_graph(Positive(), 32, output_name=OUTPUT_NAME)
    graph = quantize(fp32, measure_ranges(fp32, images_NHWC), runtime)
    model, images, answers = (tmp_path / name for name in ("model.onnx", "images.npy", "answers.npy"))
    model.write_bytes(graph)
    np.save(images, images_NHWC)
    assert EMULATOR is not None
    command = [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", ANSWERS, *map(str, (model, images, answers))]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
    # with weights of 8 bits the difference is 0.028
    np.testing.assert_allclose(np.load(answers), load_graph(graph)(images_NHWC), rtol=0, atol=1e-6)
