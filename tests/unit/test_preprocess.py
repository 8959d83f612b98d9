"""Preprocessing gives the pixels of the golden files."""

import numpy as np
import pytest
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from serving.image.preprocess import MANY_PIXELS, PIXELS_VERSION, Preprocess
from serving.image.views import make_views
from tests.golden.draw import FOLDER, PREPROCESS
from tests.support.images import encoded, sample_image

GOLDEN = sorted(path.with_suffix("") for path in FOLDER.glob("*.npz"))


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) == 10


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_the_pixels_are_those_of_the_golden_files(path) -> None:
    """If this fails, raise PIXELS_VERSION: models in use were trained on the pinned pixels."""
    golden = np.load(f"{path}.npz", allow_pickle=False)
    canvas = PREPROCESS.canvas(path.read_bytes())
    np.testing.assert_array_equal(canvas, golden["canvas"])
    np.testing.assert_array_equal(make_views(canvas, PREPROCESS.crop, count=4), golden["views"])


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
    canvas = Preprocess(resize=64, crop=56, interpolation=interpolation).resize_middle(pixels_HWC)
    np.testing.assert_array_equal(canvas, expected)


def test_a_scaled_decode_changes_pixels_little() -> None:
    data = encoded(sample_image().resize((1200, 880)), "JPEG", quality=95)
    fast = Preprocess(resize=256, crop=224).canvas(data)
    whole = Preprocess(resize=256, crop=224).resize_middle(np.asarray(sample_image().resize((1200, 880))))
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
