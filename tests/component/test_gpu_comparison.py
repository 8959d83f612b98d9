"""The comparison that tests/gpu relies on notices reordered, mirrored, recoloured and black images: shown on a CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.engine.onnx import load_graph
from tests.support.answers import ask, check_answers
from tests.support.exported import LITE0, graph_of, varied_images, write_exported_bundle
from tests.support.gpu import skip_without
from tests.support.images import encoded

CROP, COUNT = 96, 32
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def expected_NK() -> NDArray[np.float32]:
    return load_graph(graph_of(LITE0, CROP, "fp32"))(varied_images(CROP, COUNT))


@pytest.mark.slow
def test_fp16_passes_as_another_way_to_compute_the_same(expected_NK: NDArray[np.float32]) -> None:
    found_NK = load_graph(graph_of(LITE0, CROP, "fp16"))(varied_images(CROP, COUNT))
    check_answers(found_NK, expected_NK, "fp16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda images_NHWC: np.roll(images_NHWC, 1, 0),
        lambda images_NHWC: images_NHWC[::-1],
        lambda images_NHWC: images_NHWC[:, :, :, ::-1],
        lambda images_NHWC: images_NHWC.transpose(0, 2, 1, 3),
        lambda images_NHWC: images_NHWC[:, :, ::-1],
        np.zeros_like,
    ],
    ids=["next image", "reversed rows", "BGR", "transposed", "mirrored", "black"],
)
def test_images_that_are_spoilt_fail_even_at_int8_s_tolerance(
    expected_NK: NDArray[np.float32], spoil: Callable[[Images], Images]
) -> None:
    spoilt_NHWC = np.ascontiguousarray(spoil(varied_images(CROP, COUNT)))
    found_NK = load_graph(graph_of(LITE0, CROP, "fp32"))(spoilt_NHWC)
    with pytest.raises(AssertionError, match="int8 differs by"):
        check_answers(found_NK, expected_NK, "int8")


@pytest.mark.slow
def test_a_server_gives_the_answers_of_the_file_in_the_images_order(
    expected_NK: NDArray[np.float32], tmp_path: Path
) -> None:
    bundle = write_exported_bundle(tmp_path / "models", LITE0, CROP, "fp32")
    images = [encoded(Image.fromarray(image), "PNG") for image in varied_images(CROP, COUNT)]
    found, _, runtime = ask(bundle, tmp_path / "state", images, "--engine", "cpu")
    assert runtime == "onnxruntime-cpu"
    first_N = np.array(found, np.float32)
    check_answers(np.stack([first_N, 1 - first_N], 1), expected_NK, "fp32")


def test_a_missing_library_skips_a_gpu_test_and_fails_it_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWSERVE_GPU_NEEDS", "cuda tensorrt")
    skip_without("tensorrt", None)
    with pytest.raises(pytest.skip.Exception):
        skip_without("rtx", "TensorRT for RTX is not installed")
    with pytest.raises(pytest.fail.Exception, match="tensorrt: TensorRT is not installed"):
        skip_without("tensorrt", "TensorRT is not installed")


def test_a_network_that_answers_the_same_for_every_image_is_no_test() -> None:
    alike_NK = np.tile(np.float32([0.4977, 0.5023]), (COUNT, 1))
    with pytest.raises(AssertionError, match="all alike"):
        check_answers(alike_NK, alike_NK, "fp32")
