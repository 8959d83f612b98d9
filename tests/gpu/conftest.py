"""Fixtures of GPU tests: the GPU, a bundle and images. The tests are skipped where there is no GPU."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.bundle.manifest import Bundle
from serving.engine.cuda import CudaError, Gpu, find_gpu, has_gpu_driver
from serving.engine.tensorrt_library import TensorRTLibrary
from serving.engine.tensorrt_rtx import CAPABILITIES, runs_on
from tests.support.exported import LITE0, varied_images, write_exported_bundle

CROP, COUNT = 224, 64


def skip_without(library: str, problem: str | None) -> None:
    """Skip a test whose library has a problem; fail it if $PAWSERVE_GPU_NEEDS names the library."""
    if problem:
        needed = library in os.environ.get("PAWSERVE_GPU_NEEDS", "").split()
        (pytest.fail if needed else pytest.skip)(f"{library}: {problem}")


def skip_without_tensorrt(library: TensorRTLibrary, gpu: Gpu) -> None:
    """The same for TensorRT and TensorRT for RTX."""
    name = "tensorrt-rtx" if library.portable else "tensorrt"
    if not library.is_installed():
        skip_without(name, f"{library.title} is not installed: {library.install}")
    if library.portable and not runs_on(CAPABILITIES, gpu.compute_capability):
        skip_without(name, f"{library.title} does not run on {gpu.name} ({gpu.compute_capability})")


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    try:
        return find_gpu()
    except CudaError as error:
        if has_gpu_driver():
            skip_without("cuda", str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundle(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """lite0 with ImageNet weights: fp32, fp16 and INT8 for TensorRT."""
    return write_exported_bundle(tmp_path_factory.mktemp("models"), LITE0, CROP, "fp32", "fp16", "int8-trt")


@pytest.fixture(scope="session")
def images_NHWC() -> NDArray[np.uint8]:
    """Images at the size of the network's input."""
    return varied_images(CROP, COUNT)


@pytest.fixture(scope="session")
def photos(images_NHWC: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as files of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for row, image_HWC in enumerate(images_NHWC):
        path = folder / ("cat", "dog")[row % 2] / f"{row:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image_HWC).save(path)
    return folder
