"""Preprocessing gives the pixels of the golden files."""

import numpy as np
import pytest
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.image.preprocess import MANY_PIXELS, PIXELS_VERSION, Preprocess
from serving.image.views import make_views
from tests.golden.draw import FOLDER, PREPROCESS
from tests.support.images import encoded, sample_image

GOLDEN = sorted(path.with_suffix("") for path in FOLDER.glob("*.npz"))


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) == 12


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_the_pixels_are_those_of_the_golden_files(path) -> None:
    """If this fails, raise PIXELS_VERSION, or VIEWS_VERSION if view 0 is the same: models in use were trained on the
    pinned pixels."""
    golden = np.load(f"{path}.npz", allow_pickle=False)
    data = path.read_bytes()
    np.testing.assert_array_equal(PREPROCESS.canvas(data), golden["canvas"])
    np.testing.assert_array_equal(PREPROCESS.canvas(data, whole=True), golden["whole"])
    np.testing.assert_array_equal(PREPROCESS.views(data, len(golden["views"])), golden["views"])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(150, 110), (300, 299), (64, 64), (40, 90)])
def test_the_canvas_is_the_middle_square_resized_as_pillow_resizes_it(
    size: tuple[int, int], interpolation: str
) -> None:
    image = sample_image().resize(size)
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    expected = image.resize((64, 64), Image.Resampling[interpolation.upper()], box=(left, top, left + side, top + side))
    canvas = Preprocess(resize=64, crop=56, interpolation=interpolation).canvas(encoded(image, "PNG"))
    difference = np.abs(canvas.astype(int) - np.asarray(expected))
    assert difference.mean() < 0.5
    assert difference.max() <= 12


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 9))
def test_a_whole_canvas_has_the_same_middle_bit_for_bit(height: int, width: int, seed: int) -> None:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    square = Preprocess(resize=32, crop=28).resize_canvas(pixels_HWC)
    whole = Preprocess(resize=32, crop=28).resize_canvas(pixels_HWC, whole=True)
    rows, columns = whole.shape[:2]
    assert min(rows, columns) == 32
    assert 32 * min(max(height, width) / min(height, width), 2.5) - 2 <= max(rows, columns) <= 80
    top, left = (rows - 32) // 2, (columns - 32) // 2
    np.testing.assert_array_equal(whole[top : top + 32, left : left + 32], square)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (201, 200), (150, 60)])
def test_a_whole_canvas_has_no_seams(size: tuple[int, int]) -> None:
    image = sample_image().resize(size)
    canvas = PREPROCESS.resize_canvas(np.asarray(image), whole=True)
    scale = min(size) / PREPROCESS.resize
    width, height = canvas.shape[1] * scale, canvas.shape[0] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    box = (max(left, 0), max(top, 0), min(left + width, size[0]), min(top + height, size[1]))
    expected = image.resize((canvas.shape[1], canvas.shape[0]), Image.Resampling.BICUBIC, box)
    difference = np.abs(canvas.astype(int) - np.asarray(expected))
    assert difference.mean() < 0.5
    assert difference.max() <= 12


def test_views_of_bytes_are_those_of_the_canvas() -> None:
    data = encoded(sample_image(), "PNG")
    views = PREPROCESS.views(data, 5)
    np.testing.assert_array_equal(views, make_views(PREPROCESS.canvas(data, whole=True), 56, count=5))
    np.testing.assert_array_equal(PREPROCESS.views(data), views[:1])


def test_an_image_smaller_than_the_crop_is_enlarged() -> None:
    assert Preprocess().canvas(encoded(Image.new("RGB", (3, 2), "red"), "PNG")).shape == (256, 256, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1500, 1400), (1401, 1500), (70_001, 31), (30, 70_000), (1, 2_100_000)])
def test_a_large_image_has_the_pixels_that_the_resizer_computes_from_an_array(
    size: tuple[int, int], interpolation: str
) -> None:
    assert size[0] * size[1] > MANY_PIXELS
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    side = min(size)
    source, target = ImageData(*size, PixelType.U8x3, pixels_HWC.tobytes()), ImageData(64, 64, PixelType.U8x3)
    kernel = FilterType.bilinear if interpolation == "bilinear" else FilterType.catmull_rom
    middle = CropBox((size[0] - side) / 2, (size[1] - side) / 2, side, side)
    Resizer().resize(source, target, ResizeOptions(resize_alg=ResizeAlg.convolution(kernel), crop_box=middle))
    expected = np.frombuffer(target.get_buffer(), np.uint8).reshape(64, 64, 3)
    canvas = Preprocess(resize=64, crop=56, interpolation=interpolation).resize_canvas(pixels_HWC)
    np.testing.assert_array_equal(canvas, expected)


def test_a_scaled_decode_changes_pixels_little() -> None:
    data = encoded(sample_image().resize((1200, 880)), "JPEG", quality=95)
    fast = Preprocess(resize=256, crop=224).canvas(data)
    whole = Preprocess(resize=256, crop=224).resize_canvas(np.asarray(sample_image().resize((1200, 880))))
    assert np.abs(fast.astype(int) - whole).mean() < 4


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"interpolation": "nearest"}, "must be one of"),
        ({"crop": 300}, "16 <= crop <= resize <= 2048"),
        ({"resize": 5000}, "16 <= crop <= resize <= 2048"),
        ({"pixels_version": PIXELS_VERSION + 1}, "the pixels would differ"),
    ],
)
def test_invalid_settings_are_rejected(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Preprocess(**fields)
