"""Pictures at full size become upright RGB band by band: the same pixels, and half of the memory."""

import io
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from serving.image import orientation as upright
from serving.image.decode import Limits, decode
from tests.support.images import encoded, sample_image
from tests.support.waiting import LIMIT_S

PICTURE = sample_image()
GREY = PICTURE.convert("L")
KINDS = {
    "RGB": (PICTURE, {}),
    "RGBA": (PICTURE.copy(), {}),
    "LA": (GREY.copy(), {}),
    "grey": (GREY, {}),
    "1-bit": (PICTURE.convert("1"), {}),
    "palette": (PICTURE.quantize(16), {}),
    "palette with a transparent colour": (PICTURE.quantize(16), {"transparency": 3}),
    "grey with a transparent shade": (GREY, {"transparency": GREY.getpixel((9, 9))}),
    "16-bit": (Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), {}),
}
for name in ("RGBA", "LA"):
    KINDS[name][0].putalpha(GREY)


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_bands_have_the_pixels_that_the_picture_has(
    kind: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, options = KINDS[kind]
    exif = Image.Exif()
    exif[upright.EXIF_ORIENTATION] = orientation
    data = encoded(image, "PNG", exif=exif, **options)
    whole = decode(data)
    monkeypatch.setattr(upright, "BAND_PIXELS", 7 * PICTURE.width + 5)  # the last band is not a whole one
    np.testing.assert_array_equal(decode(data), whole)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_first_frame_of_a_webp_is_pillow_s(mode: str, lossless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upright, "BAND_PIXELS", 7 * PICTURE.width + 5)
    image, _ = KINDS[mode]
    options = {"lossless": lossless, "exact": True}
    for frames in ({}, {"save_all": True, "append_images": [image.rotate(180)]}):
        data = encoded(image, "WEBP", **options, **frames)
        with Image.open(io.BytesIO(data)) as opened:
            rgba = opened.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        np.testing.assert_array_equal(decode(data), np.asarray(expected))


@pytest.mark.parametrize(("format_", "options"), [("PNG", {}), ("WEBP", {}), ("JPEG", {"progressive": True})])
def test_no_other_large_picture_is_decoded_until_one_lets_go_of_its_room(
    format_: str, options: dict[str, object]
) -> None:
    """Of a progressive JPEG the decoder keeps all coefficients, though it is asked for a small picture."""
    data = encoded(PICTURE, format_, **options)
    limits = Limits(max_pixels=PICTURE.width * PICTURE.height)
    other = threading.Thread(target=decode, args=(data,), kwargs={"limits": limits})
    with ExitStack() as room:
        decode(data, limits=limits, room=room)
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join(LIMIT_S)
    assert not other.is_alive()


def test_a_photo_from_a_phone_waits_for_nobody_s_room() -> None:
    """It is decoded row by row, turned or not."""
    exif = Image.Exif()
    exif[upright.EXIF_ORIENTATION] = 6
    photo = encoded(PICTURE, "JPEG", exif=exif)
    limits = Limits(max_pixels=PICTURE.width * PICTURE.height)
    with ExitStack() as room:
        decode(encoded(PICTURE, "PNG"), limits=limits, room=room)
        assert decode(photo, limits=limits).shape == (PICTURE.width, PICTURE.height, 3)
