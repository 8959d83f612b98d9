"""OpenVINO in a process of its own, so that its crash does not lose an export.

The process runs this file, which therefore imports nothing of this project, with a folder as its argument. It reads
`model.onnx` and `images.npy` there, writes `found.npy`, and prints a line `DONE TOTAL` after each batch.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GRAPH, IMAGES, FOUND = "model.onnx", "images.npy", "found.npy"
_BATCH = 4


class ProcessFailed(RuntimeError):
    """OpenVINO computed nothing; the message says how its process ended."""


def run_openvino(
    graph: bytes,
    images_NHWC: NDArray[np.uint8],
    on_progress: Callable[[int, int], None],
    command: tuple[str, ...] = (sys.executable, "-P", __file__),
) -> NDArray[np.float32]:
    """Compute probabilities float32 `[N, K]` of uint8 images `[N, H, W, 3]` on the CPU.

    Args:
        command: of the process; the folder is added.

    Raises:
        ProcessFailed: if the process ends without a result.
    """
    with tempfile.TemporaryDirectory(prefix="pawserve.") as name:
        folder = Path(name)
        (folder / GRAPH).write_bytes(graph)
        np.save(folder / IMAGES, images_NHWC)
        with (folder / "errors").open("w+") as errors:
            child = subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=errors, text=True)
            with child:
                assert child.stdout is not None
                try:
                    for line in child.stdout:
                        done, _, total = line.partition(" ")
                        on_progress(int(done), int(total))
                    code = child.wait()
                finally:
                    child.kill()
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if code < 0:
            raise ProcessFailed(f"the process ended with signal {-code}")
        if code:
            raise ProcessFailed(f"the process ended with exit code {code}" + (f": {said[-1]}" if said else ""))
        found_NK: NDArray[np.float32] = np.load(folder / FOUND)
        return found_NK


def main(folder: Path) -> None:
    """Compute the images in a folder."""
    import openvino  # an optional library, slow to load

    images_NHWC = np.load(folder / IMAGES)
    core = openvino.Core()
    # Without the hint OpenVINO computes fp32 graphs in bfloat16 where the CPU has it, and differs by several percent.
    model = core.read_model(folder / GRAPH)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    probabilities = []
    for first in range(0, len(images_NHWC), _BATCH):
        batch_NHWC = images_NHWC[first : first + _BATCH]
        probabilities.append(np.array(compiled([batch_NHWC])[0]))
        print(first + len(batch_NHWC), len(images_NHWC), flush=True)
    np.save(folder / FOUND, np.concatenate(probabilities))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
