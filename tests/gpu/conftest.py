"""Fixtures of GPU tests: the GPU and a bundle. The tests are skipped where there is no GPU."""

import os
from pathlib import Path

import pytest

from serving.bundle.manifest import Bundle, open_bundle
from serving.engine.cuda import CudaError, Gpu, find_gpu
from tests.support.commands import run_here

ALL = ("--precisions", "fp32", "fp16", "int8", "int8-trt")
LOOSE = ("--min-agreement", "0.6", "--max-accuracy-loss", "0.4", "--max-diff-fp16", "0.05")


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    try:
        return find_gpu()
    except CudaError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundle(gpu: Gpu, drawings: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with all precisions: the one that PAWSERVE_BUNDLE names, or that of a small network on drawings."""
    if given := os.environ.get("PAWSERVE_BUNDLE"):
        return open_bundle(Path(given))
    folder = tmp_path_factory.mktemp("gpu")
    for command in (
        (
            *("training", "fit", "--data", drawings, "--run", folder / "run", "--cache", shared_cache),
            *("--arch", "test_resnet", "--weights", "none"),
        ),
        ("export", "bundle", "--run", folder / "run", "--models", folder / "models", "--name", "pets", *ALL, *LOOSE),
    ):
        finished = run_here(*command)
        assert finished.returncode == 0, finished.stderr
    return open_bundle(folder / "models" / "pets" / "1")
