"""Images at full size become upright RGB band by band: the same pixels with less memory."""

import io
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from serving.image.decode import Limits, decode
from serving.image.orientation import EXIF_ORIENTATION, upright_rgb
from tests.support.images import encoded, sample_image
from tests.support.waiting import LIMIT_S

IMAGE = sample_image()
GREY = IMAGE.convert("L")
BAND_PIXELS = 7 * IMAGE.width + 5  # the last band has fewer rows
KINDS = {
    "RGB": (IMAGE, {}),
    "RGBA": (IMAGE.copy(), {}),
    "LA": (GREY.copy(), {}),
    "grey": (GREY, {}),
    "1-bit": (IMAGE.convert("1"), {}),
    "palette": (IMAGE.quantize(16), {}),
    "palette with a transparent colour": (IMAGE.quantize(16), {"transparency": 3}),
    "grey with a transparent shade": (GREY, {"transparency": GREY.getpixel((9, 9))}),
    "16-bit": (Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), {}),
}
for name in ("RGBA", "LA"):
    KINDS[name][0].putalpha(GREY)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_bands_together_have_the_pixels_of_the_image(kind: str, orientation: int) -> None:
    image, options = KINDS[kind]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encoded(image, "PNG", exif=exif, **options)
    with Image.open(io.BytesIO(data)) as opened:
        banded = upright_rgb(opened, band_pixels=BAND_PIXELS)
    np.testing.assert_array_equal(banded, decode(data))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_first_frame_of_a_webp_is_decoded_as_by_pillow(mode: str, lossless: bool) -> None:
    image, _ = KINDS[mode]
    options = {"lossless": lossless, "exact": True}
    for frames in ({}, {"save_all": True, "append_images": [image.rotate(180)]}):
        data = encoded(image, "WEBP", **options, **frames)
        with Image.open(io.BytesIO(data)) as opened:
            rgba = opened.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        np.testing.assert_array_equal(decode(data), np.asarray(expected))
        with Image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(upright_rgb(opened, band_pixels=BAND_PIXELS), np.asarray(expected))


@pytest.mark.parametrize(("format_", "options"), [("PNG", {}), ("WEBP", {}), ("JPEG", {"progressive": True})])
def test_an_image_waits_until_another_one_releases_its_pixel_budget(format_: str, options: dict[str, object]) -> None:
    """The decoder of a progressive JPEG keeps all coefficients, even if it returns a small image."""
    data = encoded(IMAGE, format_, **options)
    limits = Limits(max_pixels=IMAGE.width * IMAGE.height)
    other = threading.Thread(target=decode, args=(data,), kwargs={"limits": limits})
    with ExitStack() as reservation:
        decode(data, limits=limits, reservation=reservation)
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join(LIMIT_S)
    assert not other.is_alive()


def test_a_photo_from_a_phone_needs_no_pixel_budget() -> None:
    """It is decoded row by row, whatever its orientation."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    photo = encoded(IMAGE, "JPEG", exif=exif)
    limits = Limits(max_pixels=IMAGE.width * IMAGE.height)
    with ExitStack() as reservation:
        decode(encoded(IMAGE, "PNG"), limits=limits, reservation=reservation)
        assert decode(photo, limits=limits).shape == (IMAGE.width, IMAGE.height, 3)
