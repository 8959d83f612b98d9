"""Fixtures of GPU tests: the GPU, a bundle and images. The tests are skipped where there is no GPU."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.bundle.manifest import Bundle
from serving.engine.cuda import CudaError, Gpu, find_gpu, has_gpu_driver
from tests.support.exported import LITE0, varied_images, write_exported_bundle
from tests.support.gpu import skip_without

CROP, COUNT = 224, 64


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
